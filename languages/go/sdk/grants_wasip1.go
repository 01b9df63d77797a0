package sandhog

import (
	"errors"
	"unsafe"
)

//go:wasmimport wasi:config/store@0.2.0-rc.1 get
func importConfigGet(key string, told unsafe.Pointer)

//go:wasmimport wasi:keyvalue/store@0.2.0-draft open
func importOpen(identifier string, told unsafe.Pointer)

//go:wasmimport wasi:keyvalue/store@0.2.0-draft [method]bucket.get
func importGet(bucket uint32, key string, told unsafe.Pointer)

//go:wasmimport wasi:keyvalue/store@0.2.0-draft [method]bucket.set
func importSet(bucket uint32, key string, value unsafe.Pointer, length uint32, told unsafe.Pointer)

//go:wasmimport wasi:keyvalue/store@0.2.0-draft [method]bucket.delete
func importDelete(bucket uint32, key string, told unsafe.Pointer)

//go:wasmimport wasi:keyvalue/store@0.2.0-draft [method]bucket.list-keys
func importListKeys(bucket uint32, from uint32, cursor uint64, told unsafe.Pointer)

//go:wasmimport wasi:keyvalue/store@0.2.0-draft [resource-drop]bucket
func importDropBucket(bucket uint32)

//go:wasmimport wasi:keyvalue/atomics@0.2.0-draft increment
func importIncrement(bucket uint32, key string, delta uint64, told unsafe.Pointer)

func config(key string) (string, bool) {
	importConfigGet(key, unsafe.Pointer(&told.word))
	defer release()
	value := text{told.word[2], told.word[3]}.copy()
	if told.word[0]&0xff != 0 {
		panic("cannot read the configuration: " + value)
	}
	return value, told.word[1]&0xff != 0
}

func stateGet(key string) ([]byte, error) {
	return inBucket(func(bucket uint32) ([]byte, error) {
		importGet(bucket, key, unsafe.Pointer(&told.word))
		if err := refused(1); err != nil || told.word[1]&0xff == 0 {
			return nil, err
		}
		return append([]byte{}, text{told.word[2], told.word[3]}.bytes()...), nil
	})
}

func stateSet(key string, value []byte) error {
	_, err := inBucket(func(bucket uint32) (struct{}, error) {
		importSet(bucket, key, unsafe.Pointer(unsafe.SliceData(value)), uint32(len(value)), unsafe.Pointer(&told.word))
		return struct{}{}, refused(1)
	})
	return err
}

func stateDelete(key string) error {
	_, err := inBucket(func(bucket uint32) (struct{}, error) {
		importDelete(bucket, key, unsafe.Pointer(&told.word))
		return struct{}{}, refused(1)
	})
	return err
}

func stateIncrement(key string, delta uint64) (uint64, error) {
	return inBucket(func(bucket uint32) (uint64, error) {
		importIncrement(bucket, key, delta, unsafe.Pointer(&told.word))
		return uint64(told.word[2]) | uint64(told.word[3])<<32, refused(2)
	})
}

func stateKeys() ([]string, error) {
	return inBucket(func(bucket uint32) ([]string, error) {
		var keys []string
		var from uint32
		var cursor uint64
		for {
			importListKeys(bucket, from, cursor, unsafe.Pointer(&told.word))
			if err := refused(2); err != nil {
				return nil, err
			}
			for _, key := range unsafe.Slice((*text)(unsafe.Pointer(uintptr(told.word[2]))), told.word[3]) {
				keys = append(keys, key.copy())
			}
			release()
			from = told.word[4] & 0xff
			if from == 0 {
				return keys, nil
			}
			cursor = uint64(told.word[6]) | uint64(told.word[7])<<32
		}
	})
}

// inBucket opens the handler's bucket, and closes it afterwards.
func inBucket[T any](do func(bucket uint32) (T, error)) (T, error) {
	defer release()
	importOpen("", unsafe.Pointer(&told.word))
	if err := refused(1); err != nil {
		var none T
		return none, err
	}
	bucket := told.word[1]
	defer importDropBucket(bucket)
	return do(bucket)
}

// refused is the error of wasi:keyvalue that was answered, if it was one. It stands at this word.
func refused(word int) error {
	if told.word[0]&0xff == 0 {
		return nil
	}
	switch told.word[word] & 0xff {
	case 0:
		return errors.New("there is no such store")
	case 1:
		return errors.New("state is not granted to this handler")
	}
	return errors.New(text{told.word[word+1], told.word[word+2]}.copy())
}
