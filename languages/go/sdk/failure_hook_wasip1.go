//go:build sandhog_failure_hook

package sandhog

import (
	"time"
	"unsafe"
)

// Only what calls JobFailed is built with this: sandhog build says so.

// loweredJob and loweredFailure are the parameters of job-failed, which are too many to be given one by one.
type loweredJob struct {
	id, jobType, body              text
	attempt, failures, maxFailures uint32
	enqueuedAtMs                   uint64
	timeoutMs                      uint32
	metadata                       list
}

type loweredFailure struct {
	kind, message text
	buried        bool
	metadata      list
}

//go:wasmexport sandhog:jobs/failure-hook@1.0.0#job-failed
func failureHookJobFailed(parameters unsafe.Pointer) {
	raw := (*struct {
		job     loweredJob
		failure loweredFailure
	})(parameters)
	job := Job{
		ID: raw.job.id.copy(), Type: raw.job.jobType.copy(), Body: raw.job.body.copy(),
		Attempt: int(raw.job.attempt), Failures: int(raw.job.failures), MaxFailures: int(raw.job.maxFailures),
		EnqueuedAt: time.UnixMilli(int64(raw.job.enqueuedAtMs)),
		Timeout:    time.Duration(raw.job.timeoutMs) * time.Millisecond,
		Metadata:   pairs(raw.job.metadata),
	}
	failure := Failure{
		Kind: raw.failure.kind.copy(), Message: raw.failure.message.copy(), Buried: raw.failure.buried,
		Metadata: pairs(raw.failure.metadata),
	}
	release()
	if jobFailed != nil {
		jobFailed(job, failure)
	}
}
