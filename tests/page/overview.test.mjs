import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Runner, go, open, row, seen } from './sandhog.mjs';

test('a runner without jobs says what to do', async () => {
  const page = await open(await Runner.start());
  await seen(page.getByText('No jobs yet.'));
  await seen(page.getByText('sandhog enqueue'));
  await go(page, '#/jobs');
  await seen(page.getByText('No jobs.'));
  await go(page, '#/dead');
  await seen(page.getByText('No dead letters.'));
});

test('a runner without handlers says what to do', async () => {
  const page = await open(await Runner.start({ handlers: {} }), '#/handlers');
  await seen(page.getByText('No handlers.'));
  await seen(page.getByText('sandhog new greet'));
});

test('what is done and what failed is counted by type, without a reload', async () => {
  const runner = await Runner.start({ handlers: { obey: ['obedient', ''], other: ['obedient', ''] } });
  const page = await open(runner);
  await seen(page.getByText('No jobs yet.'));
  await runner.ended('complete');
  await runner.ended({ job_type: 'other', do: 'err' });
  const other = row(page, 'other');
  await seen(other.getByRole('cell', { name: '1', exact: true }));
  await seen(row(page, 'obey').getByRole('img', { name: /Last hour: at most 1 done a minute/ }));
  await seen(other.getByRole('img', { name: /at most 1 failed a minute/ }));
  await seen(page.getByRole('img', { name: /All types, last hour: at most 1 done a minute.*at most 1 failed a minute/ }));
});

test('percentiles are those of the attempts', async () => {
  const runner = await Runner.start();
  await runner.ended('complete');
  const page = await open(runner);
  const cells = await row(page, 'obey').getByRole('cell').allInnerTexts();
  assert.match(cells.at(-1), /^[\d.]+ (µs|ms|s)$/);
});

test('jobs without a handler are said to be parked, and lead to their list', async () => {
  const runner = await Runner.start();
  await runner.enqueue({ job_type: 'nobody' });
  await runner.eventually(async () => (await runner.api('GET', 'stats')).counts.some((of) => of.state === 'parked'), 'it is parked');
  const page = await open(runner);
  await seen(page.getByText('1 job parked'));
  await page.getByRole('main').getByRole('link', { name: 'nobody' }).first().click();
  await seen(page.getByRole('heading', { name: 'Jobs' }));
  await seen(row(page, 'parked'));
});

test('a draining runner says so', async () => {
  const runner = await Runner.start();
  await runner.enqueue('begin-spin');
  await runner.eventually(async () => (await runner.api('GET', 'stats')).runner.busy === 1, 'it runs');
  const page = await open(runner);
  await runner.api('POST', 'drain');
  await seen(page.getByText('Draining:'));
});
