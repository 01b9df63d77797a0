// The handler of the conformance list: it does what its body says.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sandhog.h"

static const char *member(const sandhog_job *job, const char *name) {
  return sandhog_string(sandhog_member(job->body.data, name));
}

static const char *raw(const sandhog_job *job, const char *name) {
  return sandhog_raw(sandhog_member(job->body.data, name));
}

static sandhog_outcome text(const char *text) { return sandhog_complete(sandhog_quote(text)); }

static sandhog_outcome retry(const sandhog_job *job) {
  int64_t after;
  const char *reason = member(job, "reason"), *body = raw(job, "body");
  sandhog_outcome outcome = sandhog_integer(sandhog_member(job->body.data, "after_ms"), &after)
                                ? sandhog_retry_after((uint32_t)after, reason)
                                : sandhog_retry_with_backoff(reason);
  return body ? sandhog_with_body(outcome, body) : outcome;
}

static sandhog_outcome say(const char *line) {
  for (sandhog_level level = SANDHOG_TRACE; level <= SANDHOG_ERROR; level++) sandhog_log(level, line);
  puts(line);
  fprintf(stderr, "%s\n", line);
  return sandhog_complete(NULL);
}

static sandhog_outcome fields(const sandhog_job *job) {
  const char *metadata = "";
  for (size_t i = 0; i < job->metadata_count; i++)
    metadata = sandhog_join(metadata, i ? "," : "", "[", sandhog_quote_text(job->metadata[i].name), ",",
                            sandhog_quote_text(job->metadata[i].value), "]");
  return sandhog_complete(sandhog_format(
      "{\"id\":%s,\"job_type\":%s,\"body\":%s,\"attempt\":%u,\"failures\":%u,\"max_failures\":%u,"
      "\"enqueued_at_ms\":%llu,\"timeout_ms\":%u,\"metadata\":[%s]}",
      sandhog_quote_text(job->id), sandhog_quote_text(job->type), sandhog_quote_text(job->body), job->attempt,
      job->failures, job->max_failures, (unsigned long long)job->enqueued_at_ms, job->timeout_ms, metadata));
}

static sandhog_outcome enqueue(const sandhog_job *job) {
  // The body with its type in front.
  const char *type = raw(job, "job_type"), *body = raw(job, "body");
  const char *rest = body ? body + 1 : "}";
  int is_empty = rest[strspn(rest, " \t\r\n")] == '}';
  const char *made = sandhog_join("{\"job_type\":", type, is_empty ? "" : ",", rest);
  static const char *const names[] = {"after-ms", "id", "key"};
  sandhog_pair options[3];
  size_t count = 0;
  const char *given = raw(job, "options");
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    sandhog_text value = sandhog_member(given, names[i]);
    if (!value.data) continue;
    const char *option = sandhog_string(value);
    options[count++] = (sandhog_pair){sandhog_of(names[i]), sandhog_of(option ? option : sandhog_raw(value))};
  }
  const char *id = sandhog_enqueue(made, options, count);
  return text(id ? id : sandhog_fault());
}

static sandhog_outcome state(const sandhog_job *job) {
  uint64_t sum;
  if (!sandhog_increment(member(job, "key"), 1, &sum)) return sandhog_error(sandhog_fault());
  return sandhog_complete(sandhog_format("%llu", (unsigned long long)sum));
}

static sandhog_outcome read_file(const char *path) {
  FILE *file = fopen(path, "r");
  if (!file) return text(sandhog_join("cannot open ", path));
  char *all = sandhog_alloc(1 << 16);
  size_t length = fread(all, 1, 1 << 16, file);
  fclose(file);
  return sandhog_complete(sandhog_quote_text((sandhog_text){all, length}));
}

static sandhog_outcome write_file(const char *path, const char *content) {
  FILE *file = fopen(path, "w");
  if (!file) return text(sandhog_join("cannot open ", path));
  fputs(content, file);
  return fclose(file) ? text(sandhog_join("cannot write ", path)) : sandhog_complete(NULL);
}

static sandhog_outcome handle(const sandhog_job *job) {
  const char *what = member(job, "do");
  if (!what) return sandhog_error("the body has no `do`");
  if (!strcmp(what, "complete")) return sandhog_complete(raw(job, "result"));
  if (!strcmp(what, "retry")) return retry(job);
  if (!strcmp(what, "reject")) return sandhog_reject(member(job, "message"));
  if (!strcmp(what, "error")) return sandhog_error(member(job, "message"));
  if (!strcmp(what, "throw")) {
    fprintf(stderr, "%s\n", member(job, "message"));
    abort();
  }
  if (!strcmp(what, "log")) return say(member(job, "text"));
  if (!strcmp(what, "echo"))
    return sandhog_complete(sandhog_quote_text(sandhog_string_text(sandhog_member(job->body.data, "text"))));
  if (!strcmp(what, "fields")) return fields(job);
  if (!strcmp(what, "enqueue")) return enqueue(job);
  if (!strcmp(what, "config")) {
    const char *value = sandhog_config(member(job, "key"));
    return value ? text(value) : sandhog_complete("null");
  }
  if (!strcmp(what, "state")) return state(job);
  if (!strcmp(what, "http")) {
    sandhog_request request = {.url = member(job, "url")};
    sandhog_response response;
    if (!sandhog_fetch(&request, &response)) return sandhog_error(sandhog_fault());
    return sandhog_complete(sandhog_format("{\"status\":%u,\"body\":%s}", response.status, sandhog_quote_text(response.body)));
  }
  if (!strcmp(what, "read")) return read_file(member(job, "path"));
  if (!strcmp(what, "write")) return write_file(member(job, "path"), member(job, "text"));
  if (!strcmp(what, "grow"))
    for (;;) memset(sandhog_alloc(1 << 20), 1, 1 << 20);
  if (!strcmp(what, "spin"))
    for (volatile int turns = 0;; turns++) {
    }
  return sandhog_error(sandhog_join("cannot `", what, "`"));
}

static const char *set_up(void) {
  sandhog_log(SANDHOG_INFO, "set up");
  return NULL;
}

static void tear_down(void) { sandhog_log(SANDHOG_INFO, "torn down"); }

static void job_failed(const sandhog_job *job, const sandhog_failure *failure) {
  (void)job;
  sandhog_log(SANDHOG_INFO, sandhog_join("failed: ", failure->kind.data, " ", failure->message.data));
}

SANDHOG_HANDLER(handle)
SANDHOG_CONTEXT(set_up, tear_down)
SANDHOG_FAILURE_HOOK(job_failed)
