// Requests by wasi:http: see sandhog.h. Written by hand against the canonical ABI, as sandhog.c.
#include <stdlib.h>
#include <string.h>

#include "sandhog.h"

#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))
#define TYPES "wasi:http/types@0.2.12"
#define STREAMS "wasi:io/streams@0.2.12"

IMPORT(TYPES, "[static]fields.from-list") void import_fields(const sandhog_pair *entries, size_t count, void *told);
IMPORT(TYPES, "[method]fields.entries") void import_entries(uint32_t fields, void *told);
IMPORT(TYPES, "[resource-drop]fields") void import_drop_fields(uint32_t fields);
IMPORT(TYPES, "[constructor]outgoing-request") uint32_t import_new_request(uint32_t fields);
IMPORT(TYPES, "[method]outgoing-request.set-method")
uint32_t import_set_method(uint32_t request, uint32_t which, const char *name, size_t length);
IMPORT(TYPES, "[method]outgoing-request.set-scheme")
uint32_t import_set_scheme(uint32_t request, uint32_t is, uint32_t which, const char *name, size_t length);
IMPORT(TYPES, "[method]outgoing-request.set-authority")
uint32_t import_set_authority(uint32_t request, uint32_t is, const char *authority, size_t length);
IMPORT(TYPES, "[method]outgoing-request.set-path-with-query")
uint32_t import_set_path(uint32_t request, uint32_t is, const char *path, size_t length);
IMPORT(TYPES, "[method]outgoing-request.body") void import_request_body(uint32_t request, void *told);
IMPORT(TYPES, "[resource-drop]outgoing-request") void import_drop_request(uint32_t request);
IMPORT(TYPES, "[method]outgoing-body.write") void import_body_write(uint32_t body, void *told);
IMPORT(TYPES, "[static]outgoing-body.finish")
void import_body_finish(uint32_t body, uint32_t is, uint32_t trailers, void *told);
IMPORT(TYPES, "[resource-drop]outgoing-body") void import_drop_outgoing_body(uint32_t body);
IMPORT("wasi:http/outgoing-handler@0.2.12", "handle")
void import_handle(uint32_t request, uint32_t is, uint32_t options, void *told);
IMPORT(TYPES, "[method]future-incoming-response.subscribe") uint32_t import_subscribe(uint32_t future);
IMPORT(TYPES, "[method]future-incoming-response.get") void import_future_get(uint32_t future, void *told);
IMPORT(TYPES, "[resource-drop]future-incoming-response") void import_drop_future(uint32_t future);
IMPORT(TYPES, "[method]incoming-response.status") uint32_t import_status(uint32_t response);
IMPORT(TYPES, "[method]incoming-response.headers") uint32_t import_headers(uint32_t response);
IMPORT(TYPES, "[method]incoming-response.consume") void import_consume(uint32_t response, void *told);
IMPORT(TYPES, "[resource-drop]incoming-response") void import_drop_response(uint32_t response);
IMPORT(TYPES, "[method]incoming-body.stream") void import_body_stream(uint32_t body, void *told);
IMPORT(TYPES, "[resource-drop]incoming-body") void import_drop_incoming_body(uint32_t body);
IMPORT("wasi:io/poll@0.2.12", "[method]pollable.block") void import_block(uint32_t pollable);
IMPORT("wasi:io/poll@0.2.12", "[resource-drop]pollable") void import_drop_pollable(uint32_t pollable);
IMPORT(STREAMS, "[method]output-stream.blocking-write-and-flush")
void import_write(uint32_t stream, const void *bytes, size_t length, void *told);
IMPORT(STREAMS, "[resource-drop]output-stream") void import_drop_output(uint32_t stream);
IMPORT(STREAMS, "[method]input-stream.blocking-read") void import_read(uint32_t stream, uint64_t most, void *told);
IMPORT(STREAMS, "[resource-drop]input-stream") void import_drop_input(uint32_t stream);
IMPORT("wasi:io/error@0.2.12", "[resource-drop]error") void import_drop_error(uint32_t error);

// What a stream takes at once, by its contract; and what is read of one at once.
enum { WRITE_MAX = 4096, READ_MAX = 64 << 10 };

// In the order of the contract, as the codes below.
static const char *const methods[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"};
enum { METHODS = sizeof methods / sizeof *methods };

static const char *const codes[] = {
    "DNS-timeout", "DNS-error", "destination-not-found", "destination-unavailable", "destination-IP-prohibited",
    "destination-IP-unroutable", "connection-refused", "connection-terminated", "connection-timeout",
    "connection-read-timeout", "connection-write-timeout", "connection-limit-reached", "TLS-protocol-error",
    "TLS-certificate-error", "TLS-alert-received", "HTTP-request-denied", "HTTP-request-length-required",
    "HTTP-request-body-size", "HTTP-request-method-invalid", "HTTP-request-URI-invalid", "HTTP-request-URI-too-long",
    "HTTP-request-header-section-size", "HTTP-request-header-size", "HTTP-request-trailer-section-size",
    "HTTP-request-trailer-size", "HTTP-response-incomplete", "HTTP-response-header-section-size",
    "HTTP-response-header-size", "HTTP-response-body-size", "HTTP-response-trailer-section-size",
    "HTTP-response-trailer-size", "HTTP-response-transfer-coding", "HTTP-response-content-coding",
    "HTTP-response-timeout", "HTTP-upgrade-failed", "HTTP-protocol-error", "loop-detected", "configuration-error",
    "internal-error"};
enum { CODES = sizeof codes / sizeof *codes };

static _Alignas(8) uint32_t told[16];

static bool failed(const char *why) {
  sandhog_set_fault(why);
  return false;
}

// The error-code that stands at this word. The last one may come with a text.
static bool failed_by_code(int word) {
  uint32_t code = told[word] & 0xff;
  if (code == CODES - 1 && (told[word + 2] & 0xff)) return failed((const char *)(uintptr_t)told[word + 3]);
  return failed(code < CODES ? codes[code] : "an unknown error of wasi:http");
}

static bool failed_by_stream(void) {
  if (!(told[1] & 0xff)) import_drop_error(told[2]);
  return failed("the connection broke off");
}

static bool lower(const sandhog_request *request, uint32_t *made) {
  const char *url = request->url;
  uint32_t scheme;
  if (!strncmp(url, "http://", 7)) scheme = 0, url += 7;
  else if (!strncmp(url, "https://", 8)) scheme = 1, url += 8;
  else return failed("the URL is none of http or https");
  size_t authority = strcspn(url, "/?#"), length = strcspn(url, "#") - authority;
  const char *path = url + authority;
  if (*path != '/') path = sandhog_join("/", path), length++;
  const char *method = request->method ? request->method : "GET";
  uint32_t which = 0;
  while (which < METHODS && strcmp(methods[which], method)) which++;
  import_fields(request->header, request->header_count, told);
  if (told[0] & 0xff) return failed("a header is malformed, or is not the handler's to set");
  *made = import_new_request(told[1]);
  if (import_set_method(*made, which, method, strlen(method)) | import_set_scheme(*made, 1, scheme, "", 0) |
      import_set_authority(*made, 1, url, authority) | import_set_path(*made, 1, path, length)) {
    import_drop_request(*made);
    return failed("the method or the URL is malformed");
  }
  return true;
}

static bool write_body(uint32_t body, const char *bytes, size_t length) {
  if (length) {
    import_body_write(body, told);
    uint32_t stream = told[1];
    bool is_well = true;
    for (size_t at = 0; at < length && is_well; at += WRITE_MAX) {
      import_write(stream, bytes + at, length - at < WRITE_MAX ? length - at : WRITE_MAX, told);
      if (told[0] & 0xff) is_well = failed_by_stream();
    }
    import_drop_output(stream);
    if (!is_well) {
      import_drop_outgoing_body(body);
      return false;
    }
  }
  import_body_finish(body, 0, 0, told);
  return !(told[0] & 0xff) || failed_by_code(2);
}

static bool send(const sandhog_request *request, uint32_t *future) {
  uint32_t made;
  if (!lower(request, &made)) return false;
  import_request_body(made, told);
  uint32_t body = told[1];
  import_handle(made, 0, 0, told);
  if (told[0] & 0xff) {
    import_drop_outgoing_body(body);
    return failed_by_code(2);
  }
  *future = told[2];
  if (write_body(body, request->body, request->body_length)) return true;
  import_drop_future(*future);
  return false;
}

static bool wait_for(uint32_t future, uint32_t *response) {
  uint32_t pollable = import_subscribe(future);
  import_block(pollable);
  import_drop_pollable(pollable);
  import_future_get(future, told);
  import_drop_future(future);
  // Whether it is there; whether it was asked for before; whether it is an error.
  if (!(told[0] & 0xff) || (told[2] & 0xff)) return failed("no answer came");
  if (told[4] & 0xff) return failed_by_code(6);
  *response = told[6];
  return true;
}

static bool read_body(uint32_t response, sandhog_text *all) {
  import_consume(response, told);
  uint32_t body = told[1];
  import_body_stream(body, told);
  uint32_t stream = told[1];
  size_t room = 2 * READ_MAX, length = 0;
  char *read = sandhog_alloc(room);
  for (;;) {
    if (room - length < READ_MAX) {
      char *larger = sandhog_alloc(room *= 2);
      memcpy(larger, read, length);
      read = larger;
    }
    import_read(stream, READ_MAX, told);
    if (told[0] & 0xff) break;
    memcpy(read + length, (const char *)(uintptr_t)told[1], told[2]);
    length += told[2];
    sandhog_drop_latest();
  }
  read[length] = 0;
  bool is_whole = told[1] & 0xff || failed_by_stream();
  import_drop_input(stream);
  import_drop_incoming_body(body);
  *all = (sandhog_text){read, length};
  return is_whole;
}

bool sandhog_fetch(const sandhog_request *request, sandhog_response *response) {
  uint32_t future, came;
  if (!send(request, &future) || !wait_for(future, &came)) return false;
  response->status = import_status(came);
  uint32_t fields = import_headers(came);
  import_entries(fields, told);
  response->header = (const sandhog_pair *)(uintptr_t)told[0];
  response->header_count = told[1];
  import_drop_fields(fields);
  bool is_whole = read_body(came, &response->body);
  import_drop_response(came);
  return is_whole;
}
