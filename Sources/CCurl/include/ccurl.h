// What Swift cannot say of libcurl: curl_easy_setopt, curl_easy_getinfo and curl_multi_setopt are variadic, and the result in
// a CURLMsg is a union member. Each function passes its arguments on and returns libcurl's own code; none prints or allocates.
#pragma once
#include <curl/curl.h>

CURLcode cc_set_long(CURL *easy, CURLoption option, long value);
CURLcode cc_set_text(CURL *easy, CURLoption option, const char *value);
CURLcode cc_set_size(CURL *easy, CURLoption option, long long value);
CURLcode cc_set_list(CURL *easy, CURLoption option, struct curl_slist *value);

// CURLOPT_COPYPOSTFIELDS of `length` bytes: libcurl copies them.
CURLcode cc_set_body(CURL *easy, const void *bytes, size_t length);

// CURLOPT_WRITEFUNCTION, HEADERFUNCTION, READFUNCTION, each with its data pointer. A null `call` takes the callback away.
CURLcode cc_on_write(CURL *easy, curl_write_callback call, void *data);
CURLcode cc_on_header(CURL *easy, curl_write_callback call, void *data);
CURLcode cc_on_read(CURL *easy, curl_read_callback call, void *data);

// CURLMOPT_SOCKETFUNCTION and CURLMOPT_TIMERFUNCTION with their data pointers.
CURLMcode cc_multi_on_socket(CURLM *multi, curl_socket_callback call, void *data);
CURLMcode cc_multi_on_timer(CURLM *multi, curl_multi_timer_callback call, void *data);
CURLMcode cc_multi_set_long(CURLM *multi, CURLMoption option, long value);

CURLcode cc_get_long(CURL *easy, CURLINFO info, long *value);
CURLcode cc_get_socket(CURL *easy, CURLINFO info, curl_socket_t *value);

// The next finished transfer: its handle, and its result in *result; null when there is none.
CURL *cc_multi_finished(CURLM *multi, CURLcode *result);
