// SHA-256 (FIPS 180-4). In C because every byte of an image goes through it, also in a build without optimisation.
#pragma once
#include <stddef.h>
#include <stdint.h>

struct cd_sha256 {
  uint32_t state[8];
  uint64_t length;
  uint8_t block[64];
};

void cd_sha256_begin(struct cd_sha256 *hash);
void cd_sha256_add(struct cd_sha256 *hash, const void *bytes, size_t count);
// Stores 32 bytes; `hash` is used up.
void cd_sha256_end(struct cd_sha256 *hash, uint8_t *digest);
