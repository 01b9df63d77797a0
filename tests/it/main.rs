//! Integration tests: through the public surface, or the real binary.
