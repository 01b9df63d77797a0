//! What others wrote, and the client library panics at: names and notes that are no UTF-8.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// What `read` answers; none where it panics. Nothing is said of that: anybody may write such records, and any number.
pub(super) fn survive<T>(read: impl FnOnce() -> T) -> Option<T> {
    thread_local!(static QUIET: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                loud(panic);
            }
        }));
    });
    QUIET.set(true);
    // What it looks at is only borrowed, and nothing of it is half changed.
    let answer = catch_unwind(AssertUnwindSafe(read)).ok();
    QUIET.set(false);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_is_an_absence_and_the_next_answer_is_whole() {
        let no_text = std::hint::black_box(b"\xff");
        assert_eq!(survive(|| std::str::from_utf8(no_text).expect("it is text").len()), None);
        assert_eq!(survive(|| 7), Some(7));
    }
}
