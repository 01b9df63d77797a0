//! What every queue shows of its jobs: lists in pages, and what guests said.

use std::sync::Arc;

use sandhog::outcome::{Failure, Kind};
use sandhog::queue::{AttemptLines, Filter, LogLine, Queue, Settlement, State};
use sandhog::sandbox::{Level, Source};

use super::{attempt, bury, ended, enqueue, new_job, receive_one, settle};
use crate::eventually;

pub(super) async fn list_comes_in_pages(queue: Arc<dyn Queue>) {
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(enqueue(&*queue, vec![new_job("t")]).await.remove(0).id);
        let delivery = receive_one(&*queue, "t").await;
        settle(&*queue, delivery, bury(Kind::Error, "no")).await;
    }
    let dead = Filter { state: Some(State::Dead), ..Filter::default() };
    eventually!(queue.list(dead.clone()).await.unwrap().len() == ids.len());
    for newest_first in [false, true] {
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let page = Filter { limit: Some(2), after, newest_first, ..dead.clone() };
            let page = queue.list(page).await.unwrap();
            assert!(page.len() <= 2);
            let Some(last) = page.last() else { break };
            after = Some(last.cursor.clone().expect("a list has cursors"));
            listed.extend(page.into_iter().map(|job| job.id));
        }
        if newest_first {
            listed.reverse();
        }
        assert_eq!(listed, ids, "newest first: {newest_first}");
    }
    let nonsense = Filter { after: Some("'; drop table job; --".into()), ..dead };
    assert!(queue.list(nonsense).await.unwrap_err().to_string().contains("cursor"));
}

pub(super) async fn dead_letter_has_what_the_guest_said(queue: Arc<dyn Queue>) {
    let id = enqueue(&*queue, vec![new_job("t")]).await.remove(0).id;
    let delivery = receive_one(&*queue, "t").await;
    let line = |line: &str| LogLine { at_ms: 7, level: Level::Error, source: Source::Stderr, line: line.into() };
    let lines = AttemptLines { attempt: 1, lines: vec![line("it began"), line("\u{1F980} it broke")], cut: true };
    let record = attempt(&delivery, Some(Failure::new(Kind::Trap, "unreachable")));
    let settlement =
        Settlement { attempt: Some(record), lines: Some(Box::new(lines.clone())), ..bury(Kind::Trap, "unreachable") };
    settle(&*queue, delivery, settlement).await;
    assert_eq!(ended(&*queue, &id).await.logs, [lines]);
}
