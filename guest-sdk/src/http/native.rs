//! Natively: nothing is sent. Requests are recorded for this thread, and answered as a test says.

use std::cell::RefCell;
use std::collections::VecDeque;

use super::{Request, Response};

thread_local! {
    static ANSWERS: RefCell<VecDeque<Response>> = const { RefCell::new(VecDeque::new()) };
    static RECORDED: RefCell<Vec<Request>> = const { RefCell::new(Vec::new()) };
}

/// Says what the next request of this thread is answered that has no answer yet. Only there natively: for tests.
pub fn answer_with(response: Response) {
    ANSWERS.with_borrow_mut(|answers| answers.push_back(response));
}

/// What this thread sent since the last call. Only there natively: for tests.
pub fn take_recorded() -> Vec<Request> {
    RECORDED.take()
}

pub(super) fn send(request: Request) -> Result<Response, String> {
    RECORDED.with_borrow_mut(|recorded| recorded.push(request));
    ANSWERS
        .with_borrow_mut(VecDeque::pop_front)
        .ok_or_else(|| "a test must say first what is answered, with `http::answer_with`".to_owned())
}
