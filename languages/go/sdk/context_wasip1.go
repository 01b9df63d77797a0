//go:build sandhog_context

package sandhog

import "unsafe"

// Only what calls SetUp or TearDown is built with this: sandhog build says so.

//go:wasmexport sandhog:jobs/context@1.0.0#set-up
func contextSetUp() unsafe.Pointer {
	clear(answer[:])
	if setUp != nil {
		if err := setUp(); err != nil {
			return failed(err)
		}
	}
	return unsafe.Pointer(&answer)
}

//go:wasmexport sandhog:jobs/context@1.0.0#tear-down
func contextTearDown() {
	if tearDown != nil {
		tearDown()
	}
}
