// The handler of the conformance list: it does what its body says.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "sandhog.h"

namespace {

using std::string;
using std::string_view;

// What the body says.
struct Ask {
  const sandhog_job *job;

  sandhog_text member(const char *name) const { return sandhog_member(job->body.data, name); }
  const char *text(const char *name) const { return sandhog_string(member(name)); }
  const char *raw(const char *name) const { return sandhog_raw(member(name)); }
};

string quoted(string_view text) { return sandhog_quote_text({text.data(), text.size()}); }

sandhog_outcome answer(const string &text) { return sandhog_complete(quoted(text).c_str()); }

sandhog_outcome retry(const Ask &ask) {
  int64_t after;
  const char *reason = ask.text("reason"), *body = ask.raw("body");
  sandhog_outcome outcome = sandhog_integer(ask.member("after_ms"), &after)
                                ? sandhog_retry_after(static_cast<uint32_t>(after), reason)
                                : sandhog_retry_with_backoff(reason);
  return body ? sandhog_with_body(outcome, body) : outcome;
}

sandhog_outcome say(const char *line) {
  for (auto level : {SANDHOG_TRACE, SANDHOG_DEBUG, SANDHOG_INFO, SANDHOG_WARN, SANDHOG_ERROR}) sandhog_log(level, line);
  std::puts(line);
  std::fprintf(stderr, "%s\n", line);
  return sandhog_complete(nullptr);
}

sandhog_outcome fields(const sandhog_job &job) {
  string metadata;
  for (size_t i = 0; i < job.metadata_count; i++) {
    auto &pair = job.metadata[i];
    metadata += (i ? ",[" : "[") + quoted(pair.name) + "," + quoted(pair.value) + "]";
  }
  string all = "{\"id\":" + quoted(job.id) + ",\"job_type\":" + quoted(job.type) + ",\"body\":" + quoted(job.body) +
               ",\"attempt\":" + std::to_string(job.attempt) + ",\"failures\":" + std::to_string(job.failures) +
               ",\"max_failures\":" + std::to_string(job.max_failures) +
               ",\"enqueued_at_ms\":" + std::to_string(job.enqueued_at_ms) +
               ",\"timeout_ms\":" + std::to_string(job.timeout_ms) + ",\"metadata\":[" + metadata + "]}";
  return sandhog_complete(all.c_str());
}

sandhog_outcome enqueue(const Ask &ask) {
  // The body with its type in front.
  const char *body = ask.raw("body");
  string rest = body ? body + 1 : "}";
  bool is_empty = rest[rest.find_first_not_of(" \t\r\n")] == '}';
  string job = "{\"job_type\":" + string(ask.raw("job_type")) + (is_empty ? "" : ",") + rest;
  std::vector<sandhog_pair> options;
  const char *given = ask.raw("options");
  for (const char *name : {"after-ms", "id", "key"}) {
    sandhog_text value = sandhog_member(given, name);
    if (!value.data) continue;
    const char *option = sandhog_string(value);
    options.push_back({sandhog_of(name), sandhog_of(option ? option : sandhog_raw(value))});
  }
  const char *id = sandhog_enqueue(job.c_str(), options.data(), options.size());
  return answer(id ? id : sandhog_fault());
}

sandhog_outcome read_file(const string &path) {
  std::FILE *file = std::fopen(path.c_str(), "r");
  if (!file) return answer("cannot open " + path);
  string all(1 << 16, 0);
  all.resize(std::fread(all.data(), 1, all.size(), file));
  std::fclose(file);
  return answer(all);
}

sandhog_outcome write_file(const string &path, const char *content) {
  std::FILE *file = std::fopen(path.c_str(), "w");
  if (!file) return answer("cannot open " + path);
  std::fputs(content, file);
  return std::fclose(file) ? answer("cannot write " + path) : sandhog_complete(nullptr);
}

sandhog_outcome handle(const sandhog_job *job) {
  Ask ask{job};
  const char *said = ask.text("do");
  string_view what = said ? said : "";
  if (what == "complete") return sandhog_complete(ask.raw("result"));
  if (what == "retry") return retry(ask);
  if (what == "reject") return sandhog_reject(ask.text("message"));
  if (what == "error") return sandhog_error(ask.text("message"));
  if (what == "throw") {
    std::fprintf(stderr, "%s\n", ask.text("message"));
    std::abort();
  }
  if (what == "log") return say(ask.text("text"));
  if (what == "echo") {
    string_view text = sandhog_string_text(ask.member("text"));
    return answer(string(text));
  }
  if (what == "fields") return fields(*job);
  if (what == "enqueue") return enqueue(ask);
  if (what == "config") {
    const char *value = sandhog_config(ask.text("key"));
    return value ? answer(value) : sandhog_complete("null");
  }
  if (what == "state") {
    uint64_t sum;
    if (!sandhog_increment(ask.text("key"), 1, &sum)) return sandhog_error(sandhog_fault());
    return sandhog_complete(std::to_string(sum).c_str());
  }
  if (what == "http") {
    sandhog_request request = {};
    sandhog_response response;
    request.url = ask.text("url");
    if (!sandhog_fetch(&request, &response)) return sandhog_error(sandhog_fault());
    string all = "{\"status\":" + std::to_string(response.status) + ",\"body\":" + quoted(response.body) + "}";
    return sandhog_complete(all.c_str());
  }
  if (what == "read") return read_file(ask.text("path"));
  if (what == "write") return write_file(ask.text("path"), ask.text("text"));
  if (what == "grow")
    for (std::vector<string> all;;) all.emplace_back(1 << 20, 'x');
  if (what == "spin")
    for (volatile int turns = 0;; turns = turns + 1) {
    }
  return sandhog_error("cannot do this");
}

const char *set_up() {
  sandhog_log(SANDHOG_INFO, "set up");
  return nullptr;
}

void tear_down() { sandhog_log(SANDHOG_INFO, "torn down"); }

void job_failed(const sandhog_job *, const sandhog_failure *failure) {
  sandhog_log(SANDHOG_INFO, sandhog_join("failed: ", failure->kind.data, " ", failure->message.data));
}

}  // namespace

SANDHOG_HANDLER(handle)
SANDHOG_CONTEXT(set_up, tear_down)
SANDHOG_FAILURE_HOOK(job_failed)
