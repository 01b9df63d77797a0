// A handler: it greets, now or a little later.
#include <string>

#include "sandhog.h"

static sandhog_outcome handle(const sandhog_job *job) {
  const char *name = sandhog_string(sandhog_member(job->body.data, "name"));
  if (!name) return sandhog_error("the body has no `name`");
  if (sandhog_is_true(sandhog_member(job->body.data, "later")) && job->attempt == 1)
    // No failure: the job comes again.
    return sandhog_retry_after(5000, nullptr);
  sandhog_log(SANDHOG_INFO, sandhog_join("greeting ", name));
  std::string greeting = "Hello, " + std::string(name) + "!";
  return sandhog_complete(sandhog_quote(greeting.c_str()));
}

SANDHOG_HANDLER(handle)
