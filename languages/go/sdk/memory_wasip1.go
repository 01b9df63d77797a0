package sandhog

import "unsafe"

// Where the host puts what it hands over: a job, or the answer of a call. It asks for room by cabi_realloc, during which
// nothing of the host may be called: what the collector would do (it looks at the clock) is a trap. So this memory is not
// Go's. Whoever receives something copies it and calls release; until then nothing else is asked for.
const (
	chunkMin = 64 << 10
	// Each chunk is as large as all before it together, so that these are enough for all of the memory.
	chunksMax = 32
)

type chunk struct{ start, end uintptr }

var (
	chunks  [chunksMax]chunk
	count   int
	current int
	next    uintptr
	total   uintptr
	// Before init, the adapter between Go and WASI asks for its own memory, which it keeps.
	ready bool
)

func init() { ready = true }

// release gives all room back.
func release() {
	current = 0
	next = chunks[0].start
}

//go:linkname sbrk runtime.sbrk
func sbrk(size uintptr) unsafe.Pointer

//go:wasmexport cabi_realloc
//go:nosplit
func cabiRealloc(old unsafe.Pointer, oldSize, align, size uint32) unsafe.Pointer {
	if !ready {
		return unsafe.Pointer(aligned(uintptr(sbrk(uintptr(size+align))), uintptr(align)))
	}
	at := reserve(uintptr(size), uintptr(align))
	if oldSize > 0 {
		copy(unsafe.Slice((*byte)(unsafe.Pointer(at)), size), unsafe.Slice((*byte)(old), oldSize))
	}
	return unsafe.Pointer(at)
}

//go:nosplit
func reserve(size, align uintptr) uintptr {
	for ; current < count; current++ {
		if at := aligned(max(next, chunks[current].start), align); at+size <= chunks[current].end {
			next = at + size
			return at
		}
		next = 0
	}
	room := max(size+align, chunkMin, total)
	start := uintptr(sbrk(room))
	if start == 0 || count == chunksMax {
		// The host sees that memory was refused, and says so.
		panic("out of memory")
	}
	chunks[count] = chunk{start, start + room}
	count++
	total += room
	at := aligned(start, align)
	next = at + size
	return at
}

//go:nosplit
func aligned(at, align uintptr) uintptr { return (at + align - 1) &^ (align - 1) }
