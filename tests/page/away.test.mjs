import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Runner, go, open, row, seen } from './sandhog.mjs';

test('a runner that was killed is said to be away, what was there stays, and it goes on when it is back', async () => {
  const runner = await Runner.start();
  const id = await runner.ended('complete');
  const page = await open(runner, '#/jobs');
  await seen(row(page, id));
  await seen(page.getByText('live', { exact: true }));
  await runner.kill();
  await seen(page.getByText(/No answer since \d\d:\d\d:\d\d/));
  await seen(page.getByText('no answer', { exact: true }));
  await seen(row(page, id));
  await page.waitForFunction(() => document.getElementById('said').textContent.startsWith('The runner does not answer.'));
  await runner.up();
  await page.locator('#away').waitFor({ state: 'hidden' });
  await seen(page.getByText('live', { exact: true }));
  const later = await runner.ended('complete');
  await seen(row(page, later));
});

test('an action that finds no runner says so, and nothing was done', async () => {
  const runner = await Runner.start();
  const id = await runner.ended('err');
  const page = await open(runner, '#/dead?all');
  await runner.kill();
  await page.getByRole('button', { name: `Delete ${id}` }).click();
  await page.getByRole('button', { name: 'Now' }).click();
  await seen(page.locator('.toast.is-failed').getByText('does not answer'));
  await runner.up();
  assert.equal((await runner.show(id)).state, 'dead');
});

test('without the stream of events the page asks again by itself', async () => {
  const runner = await Runner.start();
  const page = await open(runner);
  await page.route('**/v1/events', (route) => route.abort());
  await page.reload();
  await seen(page.getByText('every 2 s'));
  await runner.ended('complete');
  await seen(row(page, 'obey'));
});

test('what a queue cannot tell is said, with the reason', async () => {
  const runner = await Runner.start();
  const page = await open(runner);
  await page.route('**/v1/jobs?*', (route) => route.fulfill({ status: 501, contentType: 'application/json', body: JSON.stringify({ error: { code: 'unsupported', message: 'a topic has no list of live jobs', hint: 'dead letters have one' } }) }));
  await go(page, '#/jobs');
  await seen(page.getByText('This queue cannot tell: a topic has no list of live jobs'));
  await seen(page.getByText('dead letters have one'));
});
