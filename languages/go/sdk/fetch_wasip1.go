package sandhog

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"unsafe"
)

//go:wasmimport wasi:http/types@0.2.12 [static]fields.from-list
func importFieldsFromList(entries unsafe.Pointer, count uint32, told unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [method]fields.entries
func importFieldsEntries(fields uint32, told unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [resource-drop]fields
func importDropFields(fields uint32)

//go:wasmimport wasi:http/types@0.2.12 [constructor]outgoing-request
func importNewRequest(fields uint32) uint32

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-request.set-method
func importSetMethod(request, which uint32, name string) uint32

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-request.set-scheme
func importSetScheme(request, is, which uint32, name string) uint32

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-request.set-authority
func importSetAuthority(request, is uint32, authority string) uint32

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-request.set-path-with-query
func importSetPath(request, is uint32, path string) uint32

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-request.body
func importRequestBody(request uint32, told unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [resource-drop]outgoing-request
func importDropRequest(request uint32)

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-body.write
func importBodyWrite(body uint32, told unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [static]outgoing-body.finish
func importBodyFinish(body, trailers, fields uint32, told unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [resource-drop]outgoing-body
func importDropOutgoingBody(body uint32)

//go:wasmimport wasi:http/outgoing-handler@0.2.12 handle
func importHandle(request, options, which uint32, told unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [method]future-incoming-response.subscribe
func importSubscribe(future uint32) uint32

//go:wasmimport wasi:http/types@0.2.12 [method]future-incoming-response.get
func importFutureGet(future uint32, told unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [resource-drop]future-incoming-response
func importDropFuture(future uint32)

//go:wasmimport wasi:http/types@0.2.12 [method]incoming-response.status
func importStatus(response uint32) uint32

//go:wasmimport wasi:http/types@0.2.12 [method]incoming-response.headers
func importHeaders(response uint32) uint32

//go:wasmimport wasi:http/types@0.2.12 [method]incoming-response.consume
func importConsume(response uint32, told unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [resource-drop]incoming-response
func importDropResponse(response uint32)

//go:wasmimport wasi:http/types@0.2.12 [method]incoming-body.stream
func importBodyStream(body uint32, told unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [resource-drop]incoming-body
func importDropIncomingBody(body uint32)

//go:wasmimport wasi:io/poll@0.2.12 [method]pollable.block
func importBlock(pollable uint32)

//go:wasmimport wasi:io/poll@0.2.12 [resource-drop]pollable
func importDropPollable(pollable uint32)

//go:wasmimport wasi:io/streams@0.2.12 [method]output-stream.blocking-write-and-flush
func importStreamWrite(stream uint32, bytes unsafe.Pointer, length uint32, told unsafe.Pointer)

//go:wasmimport wasi:io/streams@0.2.12 [resource-drop]output-stream
func importDropOutputStream(stream uint32)

//go:wasmimport wasi:io/streams@0.2.12 [method]input-stream.blocking-read
func importStreamRead(stream uint32, most uint64, told unsafe.Pointer)

//go:wasmimport wasi:io/streams@0.2.12 [resource-drop]input-stream
func importDropInputStream(stream uint32)

//go:wasmimport wasi:io/error@0.2.12 [method]error.to-debug-string
func importErrorText(fault uint32, told unsafe.Pointer)

//go:wasmimport wasi:io/error@0.2.12 [resource-drop]error
func importDropError(fault uint32)

const (
	// A stream takes so much at once, by its contract.
	writeMax = 4096
	readMax  = 64 << 10
)

// In the order of the contract, as those below.
var methods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}

const methodOther = 9

var errorCodes = strings.Fields(`DNS-timeout DNS-error destination-not-found destination-unavailable
	destination-IP-prohibited destination-IP-unroutable connection-refused connection-terminated connection-timeout
	connection-read-timeout connection-write-timeout connection-limit-reached TLS-protocol-error TLS-certificate-error
	TLS-alert-received HTTP-request-denied HTTP-request-length-required HTTP-request-body-size
	HTTP-request-method-invalid HTTP-request-URI-invalid HTTP-request-URI-too-long HTTP-request-header-section-size
	HTTP-request-header-size HTTP-request-trailer-section-size HTTP-request-trailer-size HTTP-response-incomplete
	HTTP-response-header-section-size HTTP-response-header-size HTTP-response-body-size
	HTTP-response-trailer-section-size HTTP-response-trailer-size HTTP-response-transfer-coding
	HTTP-response-content-coding HTTP-response-timeout HTTP-upgrade-failed HTTP-protocol-error loop-detected
	configuration-error internal-error`)

const internalError = 38

var place = unsafe.Pointer(&told.word)

func fetch(request Request) (Response, error) {
	defer release()
	future, err := send(request)
	if err != nil {
		return Response{}, fmt.Errorf("cannot send a request: %w", err)
	}
	response, err := wait(future)
	importDropFuture(future)
	if err != nil {
		return Response{}, fmt.Errorf("no answer came: %w", err)
	}
	defer importDropResponse(response)
	answered := Response{Status: int(importStatus(response)), Header: headers(response)}
	if answered.Body, err = read(response); err != nil {
		return Response{}, fmt.Errorf("the answer broke off: %w", err)
	}
	return answered, nil
}

// send hands the request over, with its body, and answers what the response comes by.
func send(request Request) (uint32, error) {
	made, err := lowerRequest(request)
	if err != nil {
		return 0, err
	}
	importRequestBody(made, place)
	body := told.word[1]
	importHandle(made, 0, 0, place)
	if told.word[0]&0xff != 0 {
		importDropOutgoingBody(body)
		return 0, errorCode(2)
	}
	future := told.word[2]
	err = write(body, request.Body)
	if err != nil {
		importDropOutgoingBody(body)
	} else {
		importBodyFinish(body, 0, 0, place)
		if told.word[0]&0xff != 0 {
			err = errorCode(2)
		}
	}
	if err != nil {
		importDropFuture(future)
		return 0, err
	}
	return future, nil
}

func lowerRequest(request Request) (uint32, error) {
	scheme, rest, _ := strings.Cut(request.URL, "://")
	rest, _, _ = strings.Cut(rest, "#")
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	authority, path := rest[:end], rest[end:]
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	which := uint32(0)
	switch strings.ToLower(scheme) {
	case "http":
	case "https":
		which = 1
	default:
		return 0, fmt.Errorf("%q is no URL of http or https", request.URL)
	}
	lowered := make([]texts, len(request.Header))
	for i, pair := range request.Header {
		lowered[i] = texts{lower(pair.Name), lower(pair.Value)}
	}
	importFieldsFromList(unsafe.Pointer(unsafe.SliceData(lowered)), uint32(len(lowered)), place)
	runtime.KeepAlive(request.Header)
	if told.word[0]&0xff != 0 {
		return 0, errors.New("a header is malformed, or is not the handler's to set")
	}
	made := importNewRequest(told.word[1])
	method, name := uint32(methodOther), request.Method
	for i, known := range methods {
		if known == name || name == "" {
			method, name = uint32(i), ""
			break
		}
	}
	refused := importSetMethod(made, method, name) | importSetScheme(made, 1, which, "") |
		importSetAuthority(made, 1, authority) | importSetPath(made, 1, path)
	if refused != 0 {
		importDropRequest(made)
		return 0, fmt.Errorf("the method or the URL is malformed: %s %q", request.Method, request.URL)
	}
	return made, nil
}

func write(body uint32, bytes []byte) error {
	if len(bytes) == 0 {
		return nil
	}
	importBodyWrite(body, place)
	stream := told.word[1]
	defer importDropOutputStream(stream)
	for len(bytes) > 0 {
		length := min(len(bytes), writeMax)
		importStreamWrite(stream, unsafe.Pointer(unsafe.SliceData(bytes)), uint32(length), place)
		if told.word[0]&0xff != 0 {
			return streamError()
		}
		bytes = bytes[length:]
	}
	return nil
}

func wait(future uint32) (uint32, error) {
	pollable := importSubscribe(future)
	importBlock(pollable)
	importDropPollable(pollable)
	importFutureGet(future, place)
	// Whether it is there; whether it was asked for before; whether it is an error.
	if told.word[0]&0xff == 0 || told.word[2]&0xff != 0 {
		return 0, errors.New("it is not there")
	}
	if told.word[4]&0xff != 0 {
		return 0, errorCode(6)
	}
	return told.word[6], nil
}

func headers(response uint32) []Pair {
	fields := importHeaders(response)
	defer importDropFields(fields)
	importFieldsEntries(fields, place)
	defer release()
	return pairs(list{told.word[0], told.word[1]})
}

func read(response uint32) ([]byte, error) {
	importConsume(response, place)
	body := told.word[1]
	defer importDropIncomingBody(body)
	importBodyStream(body, place)
	stream := told.word[1]
	defer importDropInputStream(stream)
	var all []byte
	for {
		importStreamRead(stream, readMax, place)
		if told.word[0]&0xff == 0 {
			all = append(all, text{told.word[1], told.word[2]}.bytes()...)
			release()
		} else if told.word[1]&0xff == 0 {
			return nil, streamError()
		} else {
			return all, nil
		}
	}
}

// streamError is the stream-error that was answered.
func streamError() error {
	if told.word[1]&0xff != 0 {
		return errors.New("the stream is closed")
	}
	fault := told.word[2]
	defer importDropError(fault)
	importErrorText(fault, place)
	defer release()
	return errors.New(text{told.word[0], told.word[1]}.copy())
}

// errorCode is the error-code of wasi:http that stands at this word.
func errorCode(word int) error {
	code := told.word[word] & 0xff
	if code == internalError && told.word[word+2]&0xff != 0 {
		return errors.New(text{told.word[word+3], told.word[word+4]}.copy())
	}
	if int(code) < len(errorCodes) {
		return errors.New(errorCodes[code])
	}
	return fmt.Errorf("error %d of wasi:http", code)
}
