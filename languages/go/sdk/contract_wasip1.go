package sandhog

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"
	"unsafe"
)

// The contract, as the canonical ABI has it: texts and lists are an address and a length, variants a number and what belongs
// to it, each part at a place of its own. Addresses have 32 bits in the sandbox, and 64 in Go.

// text is a text in memory, as part of something else.
type text struct{ at, length uint32 }

// texts are two of them, as a pair of the contract.
type texts struct{ name, value text }

// list is a list in memory.
type list text

// answer is what an export answers: it is read after the function has returned, and stays until the next.
var answer [10]uint32

// keep holds what answer points to.
var keep [3]string

// told is where an import puts what it answers.
var told struct {
	_    [0]uint64
	word [16]uint32
}

//go:wasmexport sandhog:jobs/handler@1.0.0#handle-job
func handleJob(
	id, jobType, body string, attempt, failures, maxFailures uint32, enqueuedAtMs uint64, timeoutMs uint32,
	metadata unsafe.Pointer, count uint32,
) unsafe.Pointer {
	job := Job{
		ID: strings.Clone(id), Type: strings.Clone(jobType), Body: strings.Clone(body),
		Attempt: int(attempt), Failures: int(failures), MaxFailures: int(maxFailures),
		EnqueuedAt: time.UnixMilli(int64(enqueuedAtMs)), Timeout: time.Duration(timeoutMs) * time.Millisecond,
		Metadata: pairs(list{uint32(uintptr(metadata)), count}),
	}
	release()
	clear(answer[:])
	if handler == nil {
		return failed(errors.New("no function was registered: call sandhog.Handle in init"))
	}
	outcome, err := handler(job)
	if err == nil {
		err = outcome.lower()
	}
	if err != nil {
		clear(answer[:])
		return failed(err)
	}
	return unsafe.Pointer(&answer)
}

// === what goes out ===

// lower writes the outcome to where answer has it.
func (o Outcome) lower() error {
	answer[1] = uint32(o.Kind)
	switch o.Kind {
	case Completed:
		return optional(o.Result, "result", 2, 0)
	case Retried:
		if o.After != nil {
			answer[2], answer[3] = 1, milliseconds(*o.After)
		}
		if o.Reason != "" {
			answer[7] = 1
			put(o.Reason, 8, 1)
		}
		return optional(o.Body, "body of the retry", 4, 0)
	case Rejected:
		put(o.Reason, 2, 0)
		return nil
	}
	return fmt.Errorf("there is no outcome of kind %d", o.Kind)
}

// optional writes a value as JSON, unless it is nil.
func optional(value any, what string, word, hold int) error {
	if value == nil {
		return nil
	}
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("cannot write the %s: %w", what, err)
	}
	answer[word] = 1
	put(string(text), word+1, hold)
	return nil
}

func failed(err error) unsafe.Pointer {
	answer[0] = 1
	put(err.Error(), 1, 0)
	return unsafe.Pointer(&answer)
}

func put(text string, word, hold int) {
	keep[hold] = text
	answer[word] = address(text)
	answer[word+1] = uint32(len(text))
}

func address(text string) uint32 { return uint32(uintptr(unsafe.Pointer(unsafe.StringData(text)))) }

// === what comes in ===

func (t text) bytes() []byte {
	if t.length == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(uintptr(t.at))), t.length)
}

func (t text) copy() string { return string(t.bytes()) }

func pairs(from list) []Pair {
	raw := unsafe.Slice((*texts)(unsafe.Pointer(uintptr(from.at))), from.length)
	copied := make([]Pair, len(raw))
	for i, pair := range raw {
		copied[i] = Pair{pair.name.copy(), pair.value.copy()}
	}
	return copied
}

// === imports ===

//go:wasmimport sandhog:jobs/log@1.0.0 log
func importLog(level uint32, message string)

//go:wasmimport sandhog:jobs/queue@1.0.0 enqueue
func importEnqueue(job string, options unsafe.Pointer, count uint32, told unsafe.Pointer)

func writeLog(level uint32, line string) { importLog(level, line) }

func enqueue(job string, options []Option) (string, error) {
	lowered := make([]texts, len(options))
	for i, option := range options {
		lowered[i] = texts{lower(option.Name), lower(option.Value)}
	}
	importEnqueue(job, unsafe.Pointer(unsafe.SliceData(lowered)), uint32(len(lowered)), unsafe.Pointer(&told.word))
	runtime.KeepAlive(options)
	defer release()
	answered := text{told.word[1], told.word[2]}.copy()
	if told.word[0]&0xff != 0 {
		return "", errors.New(answered)
	}
	return answered, nil
}

func lower(s string) text { return text{address(s), uint32(len(s))} }
