// The attacks of the suite, as programs: each tries its calls one by one and says of each what came of it.
#ifndef PROBE_H
#define PROBE_H

#include <stddef.h>

// One step of the running attack, by the call it consists of.
void blocked(const char *call, int code);
void succeeded(const char *call, const char *detail);
// What cannot be tried here, and why.
void absent(const char *call, const char *why);
// A call's own answer: below 0 it was refused, with errno; else it worked. Returns it.
long attempt(const char *call, long answer);
// The same for a call where only some refusals count as one: others mean that the attack was not tried.
long attempt_or(const char *call, long answer, int not_tried, const char *why);

// Runs `body` in a child: the signal it died by, else 0; its exit code in *code.
int in_child(void (*body)(void), int *code);

// Whether pid 1 is the app itself, or an init that it may look into as into itself: nothing to attack.
int first_is_own(void);

struct attack {
  const char *name;
  void (*run)(void);
};

// Each ends with an empty one.
extern const struct attack file_attacks[], kernel_attacks[], network_attacks[], resource_attacks[], client_attacks[];

#endif
