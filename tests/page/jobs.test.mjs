import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Runner, go, gone, loaded, open, row, seen } from './sandhog.mjs';

test('jobs are listed newest first, by state and type, and a new one comes by itself', async () => {
  const runner = await Runner.start({ handlers: { obey: ['obedient', ''], other: ['obedient', ''] } });
  const first = await runner.ended('complete');
  const second = await runner.ended({ job_type: 'other', do: 'complete' });
  const later = await runner.enqueue('complete', '?after=1h');
  const page = await open(runner, '#/jobs');
  const ids = await page.getByRole('main').locator('tbody a.id').allInnerTexts();
  assert.deepEqual(ids, [later, second, first]);

  await page.getByLabel('State').selectOption('scheduled');
  await gone(row(page, first));
  await seen(row(page, later).getByText('due in'));

  await page.getByLabel('State').selectOption('');
  await page.getByLabel('Type').fill('other');
  await page.getByRole('button', { name: 'Show' }).click();
  await gone(row(page, first));
  await seen(row(page, second));
  const third = await runner.ended({ job_type: 'other', do: 'complete' });
  await seen(row(page, third));

  await page.getByRole('link', { name: 'Clear' }).click();
  await seen(row(page, first));
});

test('a filter that nothing passes says so', async () => {
  const page = await open(await Runner.start(), '#/jobs?state=running');
  await seen(page.getByText('No job is like that now.'));
});

test('a job is opened by its id, whatever is in it', async () => {
  const runner = await Runner.start();
  const id = 'a/b?c#d %25 ü';
  await runner.ended({ job_type: 'obey', job_id: id, do: 'result 5' });
  const page = await open(runner, '#/jobs');
  await page.getByLabel('Id').fill(id);
  await page.getByRole('button', { name: 'Show' }).click();
  await seen(page.getByRole('heading', { name: id }));
  await seen(page.getByText('completed').first());
});

test('lists have pages', async () => {
  const runner = await Runner.start();
  const jobs = Array.from({ length: 120 }, (_, at) => ({ job_type: 'obey', job_id: `job-${at}`, do: 'complete' }));
  await runner.api('POST', 'jobs', jobs);
  await runner.eventually(async () => (await runner.api('GET', 'jobs?state=completed&limit=200')).jobs.length === 120, 'all are done');
  const page = await open(runner, '#/jobs');
  const found = new Set();
  for (let pages = 1; ; pages += 1) {
    for (const id of await page.locator('tbody a.id').allInnerTexts()) found.add(id);
    const older = page.getByRole('link', { name: 'Older' });
    if ((await older.count()) === 0) {
      assert.equal(pages, 3);
      break;
    }
    const first = await page.locator('tbody a.id').first().innerText();
    await older.click();
    await gone(row(page, first));
  }
  assert.equal(found.size, 120);
  await page.getByRole('link', { name: 'Newest' }).click();
  await seen(page.getByRole('link', { name: 'Older' }));
});

test('one job shows its attempts, its failure, its log, its result, and its body when asked', async () => {
  const runner = await Runner.start({ handlers: { obey: ['obedient', '[retry]\nmax_failures = 5\nbackoff = { first = "10ms" }\n'] }, config: '[queue]\nkeep_logs = "all"' });
  const id = await runner.ended('fail-before 3 result 4217');
  const page = await open(runner, `#/jobs/${encodeURIComponent(id)}`);
  const main = page.getByRole('main');
  const attempts = main.locator('.timeline > li');
  assert.equal(await attempts.count(), 3);
  assert.match(await attempts.nth(0).innerText(), /#1[\s\S]*error[\s\S]*boom/);
  assert.match(await attempts.nth(2).innerText(), /#3[\s\S]*completed/);
  await seen(main.getByText('4217'));
  assert.equal(await main.getByText('fail-before').count(), 0);
  await main.getByRole('button', { name: 'Show the body' }).click();
  await seen(main.getByText('"do":"fail-before 3 result'));
});

test('what a failed attempt logged stands with it', async () => {
  const runner = await Runner.start();
  const id = await runner.ended('panic');
  const page = await open(runner, `#/jobs/${encodeURIComponent(id)}`);
  const attempt = page.locator('.timeline > li').first();
  await seen(attempt.getByText('panicked at').first());
  await seen(attempt.locator('.log .is-error'));
  await seen(page.getByRole('heading', { name: 'Why it is a dead letter' }));
});

test('follow-ups and their parent lead to each other', async () => {
  const runner = await Runner.start({ handlers: { obey: ['obedient', 'grants.enqueue = ["follow"]\n'] } });
  const id = await runner.ended('follow 2 complete');
  const page = await open(runner, `#/jobs/${encodeURIComponent(id)}`);
  const followUps = page.getByRole('region', { name: 'Follow-up jobs' }).or(page.locator('section', { hasText: 'Follow-up jobs' }));
  await seen(followUps.getByRole('link', { name: `${id}/1/1` }));
  await followUps.getByRole('link', { name: `${id}/1/2` }).click();
  await seen(page.getByRole('heading', { name: `${id}/1/2` }));
  await page.locator('section', { hasText: 'Follows from' }).getByRole('link', { name: id }).click();
  await seen(page.getByRole('heading', { name: id, exact: true }));
});

test('a job that waits is cancelled once somebody agrees', async () => {
  const runner = await Runner.start();
  const id = await runner.enqueue('complete', '?after=1h');
  const page = await open(runner, `#/jobs/${encodeURIComponent(id)}`);
  await page.getByRole('button', { name: 'Cancel' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Back' }).click();
  assert.equal((await runner.show(id)).state, 'scheduled');
  await page.getByRole('button', { name: 'Cancel' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Cancel the job' }).click();
  await seen(page.getByText('cancelled').first());
  assert.equal((await runner.show(id)).failure.kind, 'cancelled');
});

test('a job that runs is cancelled, and the page shows it', async () => {
  const runner = await Runner.start();
  const id = await runner.enqueue('begin-spin');
  await runner.eventually(async () => (await runner.show(id)).state === 'running', 'it runs');
  const page = await open(runner, `#/jobs/${encodeURIComponent(id)}`);
  await page.getByRole('button', { name: 'Cancel' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Cancel the job' }).click();
  await seen(page.locator('.heading .state', { hasText: 'dead' }));
  assert.equal((await runner.show(id)).failure.kind, 'cancelled');
});

test('a job that is not there says so, and no more', async () => {
  const page = await open(await Runner.start(), '#/jobs/nothing');
  await seen(page.getByText('nothing', { exact: false }).first());
  await seen(page.locator('.empty'));
  await go(page, '#/jobs');
  await loaded(page);
});
