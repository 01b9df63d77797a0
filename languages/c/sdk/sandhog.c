// The contract in C: see sandhog.h. Written by hand against the canonical ABI: texts and lists are an address and a length,
// variants a number and what belongs to it, each part at a place of its own.
#include "sandhog.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))

IMPORT("sandhog:jobs/log@1.0.0", "log")
void import_log(uint32_t level, const char *message, size_t length);
IMPORT("sandhog:jobs/queue@1.0.0", "enqueue")
void import_enqueue(const char *job, size_t length, const sandhog_pair *options, size_t count, void *told);
IMPORT("wasi:config/store@0.2.0-rc.1", "get")
void import_config_get(const char *key, size_t length, void *told);
IMPORT("wasi:keyvalue/store@0.2.0-draft", "open")
void import_open(const char *name, size_t length, void *told);
IMPORT("wasi:keyvalue/store@0.2.0-draft", "[method]bucket.get")
void import_get(uint32_t bucket, const char *key, size_t length, void *told);
IMPORT("wasi:keyvalue/store@0.2.0-draft", "[method]bucket.set")
void import_set(uint32_t bucket, const char *key, size_t key_length, const void *value, size_t length, void *told);
IMPORT("wasi:keyvalue/store@0.2.0-draft", "[method]bucket.delete")
void import_delete(uint32_t bucket, const char *key, size_t length, void *told);
IMPORT("wasi:keyvalue/store@0.2.0-draft", "[resource-drop]bucket")
void import_drop_bucket(uint32_t bucket);
IMPORT("wasi:keyvalue/atomics@0.2.0-draft", "increment")
void import_increment(uint32_t bucket, const char *key, size_t length, uint64_t delta, void *told);

// Where an import puts what it answers.
static _Alignas(8) uint32_t told[8];
// What an export answers.
static sandhog_outcome answer;
static const char *last_fault = "";

// === memory that belongs to the job ===

typedef struct block {
  struct block *before;
  size_t size;
} block;

static block *blocks;

void *sandhog_alloc(size_t size) {
  // One more byte, which is zero: what the host writes here can be read as a text of C.
  block *made = malloc(sizeof(block) + size + 1);
  if (!made) __builtin_trap();
  *made = (block){blocks, size};
  blocks = made;
  char *at = (char *)(made + 1);
  at[size] = 0;
  return at;
}

// Gives back what was asked for last.
void sandhog_drop_latest(void) {
  block *latest = blocks;
  blocks = latest->before;
  free(latest);
}

// The host asks for room here when it hands something over.
__attribute__((export_name("cabi_realloc"))) void *sandhog_cabi_realloc(void *old, size_t old_size, size_t align,
                                                                        size_t size) {
  (void)align;  // Never more than malloc's own.
  void *at = sandhog_alloc(size);
  if (old_size) memcpy(at, old, old_size < size ? old_size : size);
  return at;
}

// Linked only where something is printed; it writes what is still in stdout's buffer.
extern void __stdio_exit(void) __attribute__((weak));

static void flush(void) {
  if (__stdio_exit) __stdio_exit();
}

// Called when the host has read an answer, while nothing of the host may be called.
void sandhog_release(void) {
  while (blocks) {
    block *before = blocks->before;
    free(blocks);
    blocks = before;
  }
  last_fault = "";
}

void sandhog_end(void) {
  flush();
  sandhog_release();
}

static const char *copy(const char *text, size_t length) {
  char *made = sandhog_alloc(length);
  memcpy(made, text, length);
  return made;
}

// === outcomes ===

static void put(sandhog_outcome *outcome, int word, const char *text) {
  size_t length = strlen(text);
  outcome->words[word] = (uint32_t)(uintptr_t)copy(text, length);
  outcome->words[word + 1] = (uint32_t)length;
}

static void put_option(sandhog_outcome *outcome, int word, const char *text) {
  if (!text) return;
  outcome->words[word] = 1;
  put(outcome, word + 1, text);
}

sandhog_outcome sandhog_complete(const char *result) {
  sandhog_outcome made = {{0}};
  put_option(&made, 2, result);
  return made;
}

sandhog_outcome sandhog_retry_with_backoff(const char *reason) {
  sandhog_outcome made = {{0, 1}};
  put_option(&made, 7, reason);
  return made;
}

sandhog_outcome sandhog_retry_after(uint32_t ms, const char *reason) {
  sandhog_outcome made = sandhog_retry_with_backoff(reason);
  made.words[2] = 1;
  made.words[3] = ms;
  return made;
}

sandhog_outcome sandhog_with_body(sandhog_outcome retry, const char *body) {
  put_option(&retry, 4, body);
  return retry;
}

sandhog_outcome sandhog_reject(const char *reason) {
  sandhog_outcome made = {{0, 2}};
  put(&made, 2, reason);
  return made;
}

sandhog_outcome sandhog_error(const char *message) {
  sandhog_outcome made = {{1}};
  put(&made, 1, message);
  return made;
}

const void *sandhog_answer(sandhog_outcome outcome) {
  answer = outcome;
  flush();
  return &answer;
}

const void *sandhog_answer_set_up(const char *fault) {
  answer = (sandhog_outcome){{fault != NULL}};
  if (fault) put(&answer, 1, fault);
  flush();
  return &answer;
}

// === what a handler asks for ===

const char *sandhog_fault(void) { return last_fault; }

void sandhog_set_fault(const char *why) { last_fault = why; }

sandhog_text sandhog_metadata(const sandhog_job *job, const char *name) {
  for (size_t i = 0; i < job->metadata_count; i++)
    if (!strcmp(job->metadata[i].name.data, name)) return job->metadata[i].value;
  return (sandhog_text){NULL, 0};
}

void sandhog_log(sandhog_level level, const char *message) { import_log((uint32_t)level, message, strlen(message)); }

const char *sandhog_joined(const char *first, ...) {
  va_list arguments, again;
  va_start(arguments, first);
  va_copy(again, arguments);
  size_t length = 0;
  for (const char *text = first; text; text = va_arg(arguments, const char *)) length += strlen(text);
  char *made = sandhog_alloc(length), *to = made;
  for (const char *text = first; text; text = va_arg(again, const char *)) {
    size_t part = strlen(text);
    memcpy(to, text, part);
    to += part;
  }
  va_end(again);
  va_end(arguments);
  return made;
}

const char *sandhog_format(const char *format, ...) {
  va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  int length = vsnprintf(NULL, 0, format, arguments);
  char *made = sandhog_alloc(length < 0 ? 0 : (size_t)length);
  if (length > 0) vsnprintf(made, (size_t)length + 1, format, again);
  va_end(again);
  va_end(arguments);
  return made;
}

static const char *text_at(int word) { return (const char *)(uintptr_t)told[word]; }

const char *sandhog_enqueue(const char *job, const sandhog_pair *options, size_t count) {
  import_enqueue(job, strlen(job), options, count, told);
  if (!(told[0] & 0xff)) return text_at(1);
  last_fault = text_at(1);
  return NULL;
}

const char *sandhog_config(const char *key) {
  import_config_get(key, strlen(key), told);
  if (told[0] & 0xff) {
    sandhog_log(SANDHOG_ERROR, sandhog_join("cannot read the configuration: ", text_at(2)));
    __builtin_trap();
  }
  return told[1] & 0xff ? text_at(2) : NULL;
}

// Whether wasi:keyvalue refused. Its error stands at this word.
static bool refused(int word) {
  if (!(told[0] & 0xff)) return false;
  switch (told[word] & 0xff) {
    case 0: last_fault = "there is no such store"; break;
    case 1: last_fault = "state is not granted to this handler"; break;
    default: last_fault = text_at(word + 1);
  }
  return true;
}

static bool open_bucket(uint32_t *bucket) {
  import_open("", 0, told);
  *bucket = told[1];
  return !refused(1);
}

bool sandhog_get(const char *key, sandhog_text *value) {
  uint32_t bucket;
  if (!open_bucket(&bucket)) return false;
  import_get(bucket, key, strlen(key), told);
  import_drop_bucket(bucket);
  if (refused(1)) return false;
  *value = told[1] & 0xff ? (sandhog_text){text_at(2), told[3]} : (sandhog_text){NULL, 0};
  return true;
}

bool sandhog_set(const char *key, const void *value, size_t length) {
  uint32_t bucket;
  if (!open_bucket(&bucket)) return false;
  import_set(bucket, key, strlen(key), value, length, told);
  import_drop_bucket(bucket);
  return !refused(1);
}

bool sandhog_delete(const char *key) {
  uint32_t bucket;
  if (!open_bucket(&bucket)) return false;
  import_delete(bucket, key, strlen(key), told);
  import_drop_bucket(bucket);
  return !refused(1);
}

bool sandhog_increment(const char *key, uint64_t delta, uint64_t *sum) {
  uint32_t bucket;
  if (!open_bucket(&bucket)) return false;
  import_increment(bucket, key, strlen(key), delta, told);
  import_drop_bucket(bucket);
  if (refused(2)) return false;
  *sum = told[2] | (uint64_t)told[3] << 32;
  return true;
}
