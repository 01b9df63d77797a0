import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Runner, gone, open, seen } from './sandhog.mjs';

const handler = (page, name) => page.getByRole('region', { name: `Handler ${name}` });

test('a handler shows its types, grants, limits and what it used of them', async () => {
  const runner = await Runner.start({ handlers: { obey: ['obedient', 'job_types = ["obey", "follow"]\ntimeout = "7s"\nmemory = "16MiB"\n[grants]\nenqueue = ["follow"]\n'] } });
  await runner.ended('grow 32');
  const page = await open(runner, '#/handlers');
  const card = handler(page, 'obey');
  await seen(card.getByText('serving'));
  await seen(card.getByRole('link', { name: 'follow' }));
  await seen(card.getByRole('img', { name: /Memory, at most in the last hour: [\d.]+ MiB of 16 MiB/ }));
  await seen(card.getByRole('img', { name: /Time, the longest of the last hour: .* of 7 s/ }));
  await card.getByText('Grants, limits, generations').click();
  await seen(card.getByText('enqueue follow'));
  await seen(card.getByText('7 s', { exact: true }));
});

test('a handler is paused, its jobs wait, and resumed, they run', async () => {
  const runner = await Runner.start();
  const page = await open(runner, '#/handlers');
  const card = handler(page, 'obey');
  await card.getByRole('button', { name: 'Pause obey' }).click();
  await seen(card.locator('.state', { hasText: 'paused' }));
  await runner.eventually(async () => (await runner.api('GET', 'handlers')).handlers[0].live.paused, 'the runner has paused it');
  const id = await runner.enqueue('complete');
  assert.notEqual((await runner.show(id)).state, 'completed');
  await card.getByRole('button', { name: 'Resume obey' }).click();
  await gone(card.locator('.state', { hasText: 'paused' }));
  await runner.eventually(async () => (await runner.show(id)).state === 'completed', 'it runs');
});

test('a handler is rolled back once somebody agrees, and unpinned', async () => {
  const runner = await Runner.start();
  await runner.ended('complete');
  const [{ generation: old }] = (await runner.api('GET', 'handlers')).handlers;
  runner.put('obey', 'obedient', 'timeout = "9s"\n');
  await runner.eventually(async () => (await runner.api('GET', 'handlers')).handlers[0].live.generation !== old, 'the new generation is served');
  const page = await open(runner, '#/handlers');
  const card = handler(page, 'obey');
  await card.getByRole('button', { name: 'Roll back obey' }).click();
  await page.keyboard.press('Escape');
  await gone(page.getByRole('dialog').locator('form'));
  assert.equal((await runner.api('GET', 'handlers')).handlers[0].pinned, false);
  await card.getByRole('button', { name: 'Roll back obey' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Roll back' }).click();
  await seen(card.locator('.state', { hasText: 'pinned' }));
  await runner.eventually(async () => (await runner.api('GET', 'handlers')).handlers[0].live.generation === old, 'the old one is served');
  await card.getByRole('button', { name: 'Unpin obey' }).first().click();
  await seen(card.locator('.state', { hasText: 'serving' }));
});

test('a handler is pinned to a generation', async () => {
  const runner = await Runner.start();
  await runner.ended('complete');
  const [{ generation }] = (await runner.api('GET', 'handlers')).handlers;
  const page = await open(runner, '#/handlers');
  const card = handler(page, 'obey');
  await card.getByText('Grants, limits, generations').click();
  await card.getByRole('button', { name: `Pin obey to ${generation}` }).click();
  await seen(card.locator('.state', { hasText: 'pinned' }));
  assert.equal((await runner.api('GET', 'handlers')).handlers[0].pinned, true);
});

test('a bad file says why, and roll back is not offered where there is nothing before', async () => {
  const runner = await Runner.start();
  runner.put('bad', 'obedient', 'timeout = "never"\n');
  const page = await open(runner, '#/handlers');
  await seen(handler(page, 'bad').locator('.notice'));
  assert.ok(await handler(page, 'obey').getByRole('button', { name: 'Roll back obey' }).isDisabled());
});
