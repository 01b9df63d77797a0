import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { Runner, gone, open, row, seen } from './sandhog.mjs';

const start = () => Runner.start({ handlers: { obey: ['obedient', ''], other: ['obedient', ''] } });
const left = async (runner) => (await runner.api('GET', 'dead?limit=1000')).jobs.length;
const toast = (page) => page.getByRole('region', { name: 'Actions under way' });

/** Two died of errors, one of a trap, and one of another type. */
async function fourDead(runner) {
  const errors = [await runner.ended('err'), await runner.ended('err')];
  const trap = await runner.ended('trap');
  const other = await runner.ended({ job_type: 'other', do: 'err' });
  return { errors, trap, other };
}

test('dead letters are grouped by type and reason', async () => {
  const runner = await start();
  await fourDead(runner);
  const page = await open(runner, '#/dead');
  const rows = (await page.locator('tbody tr').allInnerTexts()).map((text) => text.replaceAll('\n', ' '));
  assert.equal(rows.length, 3);
  assert.ok(rows.some((text) => /2\s+obey\s+error\s+boom/.test(text)), rows.join('|'));
  assert.ok(rows.some((text) => /1\s+obey\s+trap/.test(text)), rows.join('|'));
});

test('a group is looked at, and a letter of it opened', async () => {
  const runner = await start();
  const { errors, trap } = await fourDead(runner);
  const page = await open(runner, '#/dead');
  await page.getByRole('link', { name: 'Look at 2 dead letters of obey, error' }).click();
  await seen(row(page, errors[0]));
  await seen(row(page, errors[1]));
  assert.equal(await row(page, trap).count(), 0);
  await page.getByRole('link', { name: errors[0] }).click();
  await seen(page.getByRole('heading', { name: errors[0] }));
  await seen(page.getByText('boom').first());
});

test('a group is deleted, and no other letter', async () => {
  const runner = await start();
  const { trap, other } = await fourDead(runner);
  const page = await open(runner, '#/dead');
  await page.getByRole('button', { name: 'Delete 2 dead letters of obey, error' }).click();
  await toast(page).getByRole('button', { name: 'Now' }).click();
  await seen(toast(page).getByText('2 dead letters deleted.'));
  const { jobs } = await runner.api('GET', 'dead');
  assert.deepEqual(jobs.map((job) => job.id).sort(), [trap, other].sort());
  await seen(page.getByRole('button', { name: /Delete 1 dead letter of obey/ }));
  await gone(page.getByRole('button', { name: 'Delete 2 dead letters of obey, error' }));
});

test('a group is requeued', async () => {
  const runner = await start();
  const { errors } = await fourDead(runner);
  const page = await open(runner, '#/dead');
  await page.getByRole('button', { name: 'Requeue 2 dead letters of obey, error' }).click();
  await toast(page).getByRole('button', { name: 'Now' }).click();
  await seen(toast(page).getByText('2 dead letters requeued.'));
  const again = await runner.eventually(async () => {
    const job = await runner.show(errors[0]);
    return job.state === 'dead' && job.requeues === 1 && job;
  }, 'it ran again');
  assert.equal(again.failure.message, 'boom');
});

test('a delete that is undone was never sent', async () => {
  const runner = await start();
  const { errors, trap } = await fourDead(runner);
  const page = await open(runner, '#/dead?all');
  const sent = [];
  page.on('request', (request) => {
    if (request.method() !== 'GET') sent.push(request.url());
  });
  await page.getByRole('button', { name: `Delete ${errors[0]}` }).click();
  await seen(row(page, errors[0]).getByText('under way'));
  await toast(page).getByRole('button', { name: 'Undo' }).click();
  await seen(page.getByRole('button', { name: `Delete ${errors[0]}` }));
  await page.getByRole('button', { name: `Delete ${trap}` }).click();
  await page.locator('h1').first().click();
  await page.keyboard.press('Control+z');
  await seen(page.getByRole('button', { name: `Delete ${trap}` }));
  assert.deepEqual(sent, []);
  assert.equal(await left(runner), 4);
});

test('a delete is sent after some seconds, and not before', async () => {
  const runner = await start();
  const id = await runner.ended('err');
  const page = await open(runner, '#/dead?all');
  await page.clock.install();
  await page.reload();
  await page.getByRole('button', { name: `Delete ${id}` }).click();
  await page.mouse.move(0, 0);
  await page.clock.runFor(5_000);
  await seen(toast(page).getByText('in 1 s'));
  assert.equal(await left(runner), 1);
  await page.clock.runFor(1_500);
  await seen(toast(page).getByText(`${id} is deleted.`));
  assert.equal(await left(runner), 0);
});

test('one dead letter is requeued from its page, and leaves it', async () => {
  const runner = await start();
  const id = await runner.ended('fail-before 2 complete');
  const page = await open(runner, `#/dead/${encodeURIComponent(id)}`);
  await page.getByRole('button', { name: `Requeue ${id}` }).click();
  await toast(page).getByRole('button', { name: 'Now' }).click();
  await seen(toast(page).getByText(`${id} is requeued.`));
  await seen(page.getByRole('heading', { name: 'Dead letters' }));
});

test('one dead letter is deleted from its page', async () => {
  const runner = await start();
  const id = await runner.ended('err');
  const page = await open(runner, `#/dead/${encodeURIComponent(id)}`);
  await page.getByRole('button', { name: `Delete ${id}` }).click();
  await toast(page).getByRole('button', { name: 'Now' }).click();
  await seen(page.getByText('No dead letters.'));
  assert.equal(await left(runner), 0);
});

test('what is no job shows its bytes when asked, and cannot be requeued', async () => {
  const runner = await start();
  writeFileSync(join(runner.folder, 'jobs'), '{"broken": <b>\n');
  runner.sandhog('enqueue', '--file', 'jobs', '--bury-bad');
  const page = await open(runner, '#/dead?all');
  assert.ok(await page.getByRole('button', { name: /^Requeue/ }).isDisabled());
  await page.locator('tbody a.id').first().click();
  await page.getByRole('button', { name: 'Show the body' }).click();
  await seen(page.getByText('{"broken": <b>'));
});

test('what cannot be done is said, and the letter stays', async () => {
  const runner = await start();
  const id = await runner.ended('err');
  const page = await open(runner, '#/dead?all');
  await page.getByRole('button', { name: `Delete ${id}` }).click();
  await runner.api('DELETE', `dead/${encodeURIComponent(id)}`);
  await toast(page).getByRole('button', { name: 'Now' }).click();
  await seen(page.locator('.toast.is-failed'));
});
