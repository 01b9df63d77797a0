// As much of JSON as a handler needs to look into its body: see sandhog.h. What is no JSON is read as nothing.
#include <string.h>

#include "sandhog.h"

static const char *past_space(const char *at) {
  while (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r') at++;
  return at;
}

// Behind a string that begins here; NULL if it does not end.
static const char *past_string(const char *at) {
  for (at++; *at && *at != '"'; at++)
    if (*at == '\\' && !*++at) return NULL;
  return *at ? at + 1 : NULL;
}

// Behind a value that begins here; NULL if it does not end. Brackets are counted, not matched.
static const char *past_value(const char *at) {
  size_t depth = 0;
  do {
    at = past_space(at);
    if (*at == '"') {
      at = past_string(at);
      if (!at) return NULL;
    } else if (*at == '{' || *at == '[') {
      depth++, at++;
    } else if (depth && (*at == '}' || *at == ']')) {
      depth--, at++;
    } else if (depth && (*at == ',' || *at == ':')) {
      at++;
    } else {
      size_t word = strcspn(at, " \t\r\n,:\"{}[]");
      if (!word) return NULL;
      at += word;
    }
  } while (depth);
  return at;
}

sandhog_text sandhog_member(const char *object, const char *name) {
  sandhog_text none = {NULL, 0};
  if (!object) return none;
  const char *at = past_space(object);
  if (*at != '{') return none;
  do {
    at = past_space(at + 1);
    if (*at != '"') return none;
    const char *key = at;
    at = past_string(at);
    if (!at) return none;
    sandhog_text raw = {key, (size_t)(at - key)};
    at = past_space(at);
    if (*at != ':') return none;
    const char *value = past_space(at + 1);
    at = past_value(value);
    if (!at) return none;
    const char *found = sandhog_string(raw);
    if (found && !strcmp(found, name)) return (sandhog_text){value, (size_t)(at - value)};
    at = past_space(at);
  } while (*at == ',');
  return none;
}

// Four hexadecimal digits; -1 if they are not there.
static int32_t unit_at(const char *at) {
  int32_t unit = 0;
  for (int i = 0; i < 4; i++) {
    char c = at[i];
    if (c >= '0' && c <= '9') unit = unit * 16 + c - '0';
    else if ((c | 32) >= 'a' && (c | 32) <= 'f') unit = unit * 16 + (c | 32) - 'a' + 10;
    else return -1;
  }
  return unit;
}

static char *put_character(char *to, uint32_t c) {
  if (c < 0x80) {
    *to++ = (char)c;
  } else if (c < 0x800) {
    *to++ = (char)(0xc0 | c >> 6), *to++ = (char)(0x80 | (c & 63));
  } else if (c < 0x10000) {
    *to++ = (char)(0xe0 | c >> 12), *to++ = (char)(0x80 | (c >> 6 & 63)), *to++ = (char)(0x80 | (c & 63));
  } else {
    *to++ = (char)(0xf0 | c >> 18), *to++ = (char)(0x80 | (c >> 12 & 63));
    *to++ = (char)(0x80 | (c >> 6 & 63)), *to++ = (char)(0x80 | (c & 63));
  }
  return to;
}

// The character behind \u, and how far it reaches.
static uint32_t escaped(const char **at) {
  int32_t unit = unit_at(*at);
  if (unit < 0) return 0xfffd;
  *at += 4;
  if (unit >= 0xd800 && unit < 0xdc00 && (*at)[0] == '\\' && (*at)[1] == 'u') {
    int32_t low = unit_at(*at + 2);
    if (low >= 0xdc00 && low < 0xe000) {
      *at += 6;
      return 0x10000 + ((uint32_t)(unit - 0xd800) << 10) + (uint32_t)(low - 0xdc00);
    }
  }
  return unit >= 0xd800 && unit < 0xe000 ? 0xfffd : (uint32_t)unit;
}

sandhog_text sandhog_string_text(sandhog_text value) {
  sandhog_text none = {NULL, 0};
  if (!value.data || value.length < 2 || value.data[0] != '"') return none;
  char *made = sandhog_alloc(value.length), *to = made;
  const char *end = value.data + value.length - 1;
  for (const char *at = value.data + 1; at < end;) {
    if (*at != '\\') {
      *to++ = *at++;
      continue;
    }
    char c = at[1];
    at += 2;
    switch (c) {
      case 'n': *to++ = '\n'; break;
      case 't': *to++ = '\t'; break;
      case 'r': *to++ = '\r'; break;
      case 'b': *to++ = '\b'; break;
      case 'f': *to++ = '\f'; break;
      case 'u': to = put_character(to, escaped(&at)); break;
      default: *to++ = c;
    }
  }
  *to = 0;
  return (sandhog_text){made, (size_t)(to - made)};
}

const char *sandhog_string(sandhog_text value) { return sandhog_string_text(value).data; }

const char *sandhog_raw(sandhog_text value) {
  if (!value.data) return NULL;
  char *made = sandhog_alloc(value.length);
  memcpy(made, value.data, value.length);
  return made;
}

bool sandhog_integer(sandhog_text value, int64_t *number) {
  size_t at = value.data && value.length && value.data[0] == '-';
  if (!value.data || at == value.length) return false;
  uint64_t sum = 0;
  for (size_t i = at; i < value.length; i++) {
    unsigned digit = (unsigned)(value.data[i] - '0');
    if (digit > 9 || __builtin_mul_overflow(sum, (uint64_t)10, &sum) || __builtin_add_overflow(sum, digit, &sum))
      return false;
  }
  if (sum > (uint64_t)INT64_MAX) return false;
  *number = at ? -(int64_t)sum : (int64_t)sum;
  return true;
}

bool sandhog_is_true(sandhog_text value) { return value.length == 4 && !memcmp(value.data, "true", 4); }

const char *sandhog_quote_text(sandhog_text text) {
  char *made = sandhog_alloc(6 * text.length + 2), *to = made;
  *to++ = '"';
  for (size_t i = 0; i < text.length; i++) {
    unsigned char c = (unsigned char)text.data[i];
    if (c == '"' || c == '\\') {
      *to++ = '\\', *to++ = (char)c;
    } else if (c < 0x20) {
      memcpy(to, "\\u00", 4);
      to[4] = (char)('0' + (c >> 4));
      to[5] = "0123456789abcdef"[c & 15];
      to += 6;
    } else {
      *to++ = (char)c;
    }
  }
  *to++ = '"';
  *to = 0;
  return made;
}

const char *sandhog_quote(const char *text) { return sandhog_quote_text(sandhog_of(text)); }
