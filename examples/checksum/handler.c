// The CRC-32 of a file in a granted folder, or of a text in the body.
#include <stdio.h>
#include <string.h>

#include "sandhog.h"

enum { BUFFER = 64 << 10 };

static uint32_t table[256];

static void make_table(void) {
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; bit++) c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
    table[i] = c;
  }
}

static uint32_t sum(uint32_t crc, const char *bytes, size_t length) {
  crc = ~crc;
  for (size_t i = 0; i < length; i++) crc = table[(crc ^ (unsigned char)bytes[i]) & 255] ^ crc >> 8;
  return ~crc;
}

static sandhog_outcome answer(uint32_t crc, size_t length) {
  return sandhog_complete(sandhog_format("{\"crc32\":\"%08x\",\"bytes\":%zu}", (unsigned)crc, length));
}

static sandhog_outcome of_file(const char *path) {
  FILE *file = fopen(path, "rb");
  if (!file) return sandhog_reject(sandhog_join("there is no `", path, "`"));
  char *buffer = sandhog_alloc(BUFFER);
  uint32_t crc = 0;
  size_t length = 0, more;
  while ((more = fread(buffer, 1, BUFFER, file)) > 0) {
    crc = sum(crc, buffer, more);
    length += more;
  }
  bool is_whole = !ferror(file);
  fclose(file);
  return is_whole ? answer(crc, length) : sandhog_error(sandhog_join("cannot read `", path, "`"));
}

static sandhog_outcome handle(const sandhog_job *job) {
  make_table();
  const char *path = sandhog_string(sandhog_member(job->body.data, "file"));
  if (path) return of_file(path);
  sandhog_text text = sandhog_string_text(sandhog_member(job->body.data, "text"));
  if (text.data) return answer(sum(0, text.data, text.length), text.length);
  return sandhog_reject("the body has neither `file` nor `text`");
}

SANDHOG_HANDLER(handle)
