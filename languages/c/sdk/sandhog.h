// What a handler in C or C++ is written with.
//
//     #include "sandhog.h"
//
//     static sandhog_outcome handle(const sandhog_job *job) {
//       const char *name = sandhog_string(sandhog_member(job->body.data, "name"));
//       if (!name) return sandhog_error("the body has no `name`");
//       sandhog_log(SANDHOG_INFO, "greeting somebody");
//       return sandhog_complete(sandhog_quote(sandhog_join("Hello, ", name, "!")));
//     }
//
//     SANDHOG_HANDLER(handle)
//
// What is printed goes to the job's log. abort() and a trap are failed attempts; their last words are what stood on stderr.
// Every text that comes from here has a zero behind it, belongs to the job, and is gone when the job is done: nothing is freed.
#ifndef SANDHOG_H
#define SANDHOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#include <string_view>
extern "C" {
#endif

// Text in UTF-8. There is none if data is NULL.
typedef struct sandhog_text {
  const char *data;
  size_t length;
#ifdef __cplusplus
  operator std::string_view() const { return {data, length}; }
#endif
} sandhog_text;

// A name and a value.
typedef struct sandhog_pair {
  sandhog_text name, value;
} sandhog_pair;

// One unit of work, as one attempt sees it.
typedef struct sandhog_job {
  sandhog_text id;          // The same on every attempt.
  sandhog_text type;        // What selected this handler.
  sandhog_text body;        // The job as it was enqueued, or as the last retry left it.
  uint32_t attempt;         // Which start this is, from 1, interrupted ones included.
  uint32_t failures;        // How many attempts failed so far.
  uint32_t max_failures;    // How many bury the job.
  uint64_t enqueued_at_ms;  // When it was enqueued: Unix time.
  uint32_t timeout_ms;      // How long this attempt may take.
  const sandhog_pair *metadata;
  size_t metadata_count;
} sandhog_job;

// A failed attempt, for SANDHOG_FAILURE_HOOK.
typedef struct sandhog_failure {
  sandhog_text kind;     // What went wrong: "error", "trap", "timeout", "rejected" and others.
  sandhog_text message;  // The same for people.
  bool buried;           // Whether the job became a dead letter with this failure.
  const sandhog_pair *metadata;
  size_t metadata_count;
} sandhog_failure;

// Both, as the contract hands them over.
typedef struct sandhog_failed_job {
  sandhog_job job;
  sandhog_failure failure;
} sandhog_failed_job;

// How an attempt ended: made by the functions below. What it looks like inside is the contract's business.
typedef struct sandhog_outcome {
  uint32_t words[10];
} sandhog_outcome;

// The job is done. The result is JSON; NULL: none.
sandhog_outcome sandhog_complete(const char *result);
// The job is not finished yet, which is no failure: another attempt, so much later. The reason is for people, or NULL.
sandhog_outcome sandhog_retry_after(uint32_t ms, const char *reason);
// The same, when the handler's backoff says.
sandhog_outcome sandhog_retry_with_backoff(const char *reason);
// With a retry: what the next attempt sees as its body.
sandhog_outcome sandhog_with_body(sandhog_outcome retry, const char *body);
// The job will never work: it becomes a dead letter at once.
sandhog_outcome sandhog_reject(const char *reason);
// This attempt failed; what follows is up to the manifest.
sandhog_outcome sandhog_error(const char *message);

// The value of the first pair of metadata with this name; "header.NAME" is what the enqueuer sent along.
sandhog_text sandhog_metadata(const sandhog_job *job, const char *name);

typedef enum sandhog_level { SANDHOG_TRACE, SANDHOG_DEBUG, SANDHOG_INFO, SANDHOG_WARN, SANDHOG_ERROR } sandhog_level;
// A line in the job's log.
void sandhog_log(sandhog_level level, const char *message);

// Enqueues a follow-up job: a JSON object with a "job_type", which the manifest must grant (grants.enqueue). Options are
// "after-ms", "id", "key", "header.NAME". Answers its id; or NULL, and sandhog_fault() says why.
const char *sandhog_enqueue(const char *job, const sandhog_pair *options, size_t count);

// A value that the manifest grants (grants.config); NULL if it does not.
const char *sandhog_config(const char *key);

// What the handler keeps (grants.state). What an attempt wrote is kept when it is settled as complete or retry. Where these
// answer false, sandhog_fault() says why; a value that is not there is read as none, which is no fault.
bool sandhog_get(const char *key, sandhog_text *value);
bool sandhog_set(const char *key, const void *value, size_t length);
bool sandhog_delete(const char *key);
// Adds to a number, from 0. If another attempt changes it before this one is settled, the job runs again.
bool sandhog_increment(const char *key, uint64_t delta, uint64_t *sum);

// A request by HTTP, which the manifest must grant (grants.http).
typedef struct sandhog_request {
  const char *method;  // NULL: GET.
  const char *url;
  const sandhog_pair *header;
  size_t header_count;
  const void *body;
  size_t body_length;
} sandhog_request;

// The answer to a request, whatever its status. Names of headers are in lower case.
typedef struct sandhog_response {
  uint32_t status;
  const sandhog_pair *header;
  size_t header_count;
  sandhog_text body;
} sandhog_response;

// Sends a request and waits for all of the answer. Redirects are not followed. Where it answers false, no answer came, and
// sandhog_fault() says why.
bool sandhog_fetch(const sandhog_request *request, sandhog_response *response);

// Why the last call that can fail did.
const char *sandhog_fault(void);

// A member of a JSON object, as it stands there; none if there is none. It is not cut out: data goes on behind it.
sandhog_text sandhog_member(const char *object, const char *name);
// The text of a JSON string that stands somewhere, as sandhog_member finds it; NULL if it is something else.
const char *sandhog_string(sandhog_text value);
// The same with its length, for texts that may have zeros in them.
sandhog_text sandhog_string_text(sandhog_text value);
// The text of any JSON value, cut out; NULL if there is none.
const char *sandhog_raw(sandhog_text value);
// A JSON integer; false if it is something else.
bool sandhog_integer(sandhog_text value, int64_t *number);
// Whether it is true.
bool sandhog_is_true(sandhog_text value);
// Text as a JSON string.
const char *sandhog_quote(const char *text);
const char *sandhog_quote_text(sandhog_text text);
// Texts put together.
#define sandhog_join(...) sandhog_joined(__VA_ARGS__, (const char *)NULL)
const char *sandhog_joined(const char *first, ...) __attribute__((sentinel));
// As sprintf, with as much room as it takes. A handler that prints nothing and never calls this imports nothing of WASI, and
// starts in half the time.
const char *sandhog_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
// Room that belongs to the job.
void *sandhog_alloc(size_t size);
// A text from a zero-terminated one.
static inline sandhog_text sandhog_of(const char *text) {
  sandhog_text made = {text, text ? __builtin_strlen(text) : 0};
  return made;
}

// What follows says which functions are the handler's. Each stands once, outside of functions.
const void *sandhog_answer(sandhog_outcome outcome);
const void *sandhog_answer_set_up(const char *fault);
void sandhog_release(void);
void sandhog_end(void);
void sandhog_set_fault(const char *why);
void sandhog_drop_latest(void);

#define SANDHOG_EXPORT(name) __attribute__((export_name(name)))

// sandhog_outcome handle(const sandhog_job *job): works one job.
#define SANDHOG_HANDLER(handle)                                                                                        \
  SANDHOG_C SANDHOG_EXPORT("sandhog:jobs/handler@1.0.0#handle-job") const void *sandhog_handle_job(                   \
      const char *id, size_t id_length, const char *type, size_t type_length, const char *body, size_t body_length,   \
      uint32_t attempt, uint32_t failures, uint32_t max_failures, uint64_t enqueued_at_ms, uint32_t timeout_ms,       \
      const sandhog_pair *metadata, size_t metadata_count) {                                                          \
    sandhog_job job = {{id, id_length}, {type, type_length}, {body, body_length}, attempt, failures, max_failures,    \
                       enqueued_at_ms, timeout_ms, metadata, metadata_count};                                         \
    return sandhog_answer(handle(&job));                                                                              \
  }                                                                                                                    \
  SANDHOG_C SANDHOG_EXPORT("cabi_post_sandhog:jobs/handler@1.0.0#handle-job") void sandhog_handle_job_done(            \
      const void *answer) {                                                                                           \
    (void)answer;                                                                                                     \
    sandhog_release();                                                                                                \
  }

// const char *set_up(void): called once for an instance, before its first job; answers NULL, or why it failed.
// void tear_down(void): called once, after its last job. It pays where the manifest has instances reused.
#define SANDHOG_CONTEXT(set_up, tear_down)                                                                             \
  SANDHOG_C SANDHOG_EXPORT("sandhog:jobs/context@1.0.0#set-up") const void *sandhog_set_up(void) {                     \
    return sandhog_answer_set_up(set_up());                                                                           \
  }                                                                                                                    \
  SANDHOG_C SANDHOG_EXPORT("sandhog:jobs/context@1.0.0#tear-down") void sandhog_tear_down(void) {                      \
    tear_down();                                                                                                      \
    sandhog_end();                                                                                                    \
  }

// void job_failed(const sandhog_job *job, const sandhog_failure *failure): is told of failed attempts and of rejects.
#define SANDHOG_FAILURE_HOOK(job_failed)                                                                               \
  SANDHOG_C SANDHOG_EXPORT("sandhog:jobs/failure-hook@1.0.0#job-failed") void sandhog_job_failed(                      \
      const sandhog_failed_job *told) {                                                                               \
    job_failed(&told->job, &told->failure);                                                                           \
    sandhog_end();                                                                                                    \
  }

#ifdef __cplusplus
#define SANDHOG_C extern "C"
}
#else
#define SANDHOG_C
#endif

#endif
