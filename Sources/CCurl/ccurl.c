#include "ccurl.h"

CURLcode cc_set_long(CURL *easy, CURLoption option, long value) { return curl_easy_setopt(easy, option, value); }

CURLcode cc_set_text(CURL *easy, CURLoption option, const char *value) { return curl_easy_setopt(easy, option, value); }

CURLcode cc_set_size(CURL *easy, CURLoption option, long long value) {
  return curl_easy_setopt(easy, option, (curl_off_t)value);
}

CURLcode cc_set_list(CURL *easy, CURLoption option, struct curl_slist *value) {
  return curl_easy_setopt(easy, option, value);
}

CURLcode cc_set_body(CURL *easy, const void *bytes, size_t length) {
  // The size must be set first: without it libcurl takes the bytes for a C string.
  CURLcode code = curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)length);
  return code != CURLE_OK ? code : curl_easy_setopt(easy, CURLOPT_COPYPOSTFIELDS, bytes);
}

CURLcode cc_on_write(CURL *easy, curl_write_callback call, void *data) {
  CURLcode code = curl_easy_setopt(easy, CURLOPT_WRITEDATA, data);
  return code != CURLE_OK ? code : curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, call);
}

CURLcode cc_on_header(CURL *easy, curl_write_callback call, void *data) {
  CURLcode code = curl_easy_setopt(easy, CURLOPT_HEADERDATA, data);
  return code != CURLE_OK ? code : curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, call);
}

CURLcode cc_on_read(CURL *easy, curl_read_callback call, void *data) {
  CURLcode code = curl_easy_setopt(easy, CURLOPT_READDATA, data);
  return code != CURLE_OK ? code : curl_easy_setopt(easy, CURLOPT_READFUNCTION, call);
}

CURLMcode cc_multi_on_socket(CURLM *multi, curl_socket_callback call, void *data) {
  CURLMcode code = curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, data);
  return code != CURLM_OK ? code : curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, call);
}

CURLMcode cc_multi_on_timer(CURLM *multi, curl_multi_timer_callback call, void *data) {
  CURLMcode code = curl_multi_setopt(multi, CURLMOPT_TIMERDATA, data);
  return code != CURLM_OK ? code : curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, call);
}

CURLMcode cc_multi_set_long(CURLM *multi, CURLMoption option, long value) {
  return curl_multi_setopt(multi, option, value);
}

CURLcode cc_get_long(CURL *easy, CURLINFO info, long *value) { return curl_easy_getinfo(easy, info, value); }

CURLcode cc_get_socket(CURL *easy, CURLINFO info, curl_socket_t *value) { return curl_easy_getinfo(easy, info, value); }

CURL *cc_multi_finished(CURLM *multi, CURLcode *result) {
  int left = 0;
  for (CURLMsg *message; (message = curl_multi_info_read(multi, &left)) != NULL;) {
    if (message->msg != CURLMSG_DONE) continue;
    *result = message->data.result;
    return message->easy_handle;
  }
  return NULL;
}
