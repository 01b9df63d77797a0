import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Runner, go, open, row, seen } from './sandhog.mjs';

const HTML = '<img src=x onerror=complain("ran")><script>complain("ran")</script>';
const ANSI = '\u001b[31mred\u001b[0m';
const TURNED = '\u202egnp.exe';
const NASTY = `${HTML}${ANSI}${TURNED}`;
const SHOWN = `${HTML}\ufffd[31mred\ufffd[0m\ufffdgnp.exe`;

/** A handler that takes every type, and rejects it by its name; one that logs what it is told. */
const start = () => Runner.start({
  handlers: { hostile: ['hostile', 'job_types = ["*"]\n'], 'report-failure': ['report', ''], obey: ['obedient', ''] },
  config: '[queue]\nkeep_logs = "all"',
});

async function holdsAsText(page, text) {
  await seen(page.getByText(text, { exact: false }));
  assert.equal(await page.locator('main img, main script').count(), 0, 'markup came to life');
}

test('a job type, a failure text and an id that are markup or controls are shown as text, everywhere', async () => {
  const runner = await start();
  const jobType = `${HTML}\u200f${TURNED}`;
  const id = await runner.enqueue({ job_type: jobType, job_id: `id ${HTML}` });
  await runner.eventually(async () => (await runner.show(id)).state === 'dead', 'it is rejected');
  const page = await open(runner);
  for (const address of ['#/', '#/jobs', '#/dead', '#/dead?all', `#/dead/${encodeURIComponent(id)}`, `#/jobs/${encodeURIComponent(id)}`]) {
    await go(page, address);
    await holdsAsText(page, `${HTML}\ufffd\ufffdgnp.exe`);
  }
  assert.match(await page.locator('main').innerText(), /is not hostile/);
});

test('a body, a result and metadata that are markup or controls are shown as text', async () => {
  const runner = await start();
  const body = { job_type: 'obey', do: `result ${HTML}` };
  const id = await runner.ended(body);
  const page = await open(runner, `#/jobs/${encodeURIComponent(id)}`);
  await holdsAsText(page, 'onerror=complain');
  await page.getByRole('button', { name: 'Show the body' }).click();
  await seen(page.locator('section', { has: page.getByRole('heading', { name: 'Body' }) }).getByText('onerror=complain'));
  assert.equal(await page.locator('main img, main script').count(), 0);
});

test('a log line that is markup or controls is shown as text', async () => {
  const runner = await start();
  const letter = { id: NASTY, job_type: 'x', attempt: 1, failure: { kind: 'error', message: NASTY } };
  const id = await runner.ended({ job_type: 'report-failure', dead_letter: letter });
  const page = await open(runner, `#/jobs/${encodeURIComponent(id)}`);
  await seen(page.locator('.log .line'));
  const line = await page.locator('.log .line').first().innerText();
  assert.ok(line.includes(HTML), line);
  assert.doesNotMatch(await page.locator('main').innerText(), /[\u001b\u202e]/);
  assert.ok((await page.locator('main').innerText()).includes(SHOWN.slice(HTML.length)), 'controls show as replacements');
  assert.equal(await page.locator('main img, main script').count(), 0);
});

test('a bad manifest and a strange address are shown as text', async () => {
  const runner = await start();
  runner.put('bad', 'obedient', `timeout = '${HTML}'\n`);
  const page = await open(runner, '#/handlers');
  await seen(page.getByText('onerror=complain'));
  for (const address of [`#/jobs?type=${encodeURIComponent(NASTY)}`, `#/jobs/${encodeURIComponent(HTML)}`, '#/jobs/%zz', `#/${encodeURIComponent(HTML)}`, `#/jobs?cursor=${encodeURIComponent(HTML)}`, '#/dead?kind=%00&type=%00']) {
    await go(page, address);
  }
  assert.equal(await page.locator('main img, main script').count(), 0);
});

test('the page is served with its policy, and nothing beside its own files', async () => {
  const runner = await start();
  const answer = await fetch(`${runner.url}/`);
  const policy = answer.headers.get('content-security-policy');
  for (const part of ["default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]) {
    assert.ok(policy.includes(part), policy);
  }
  assert.equal(answer.headers.get('x-content-type-options'), 'nosniff');
  const tag = answer.headers.get('etag');
  assert.equal((await fetch(`${runner.url}/`, { headers: { 'if-none-match': tag } })).status, 304);
  for (const path of ['page/../Cargo.toml', 'page/%2e%2e/%2e%2e/etc/passwd', 'page/..%2f..%2fetc%2fpasswd', 'page/', 'page/nothing.js', 'page/app.js/x']) {
    assert.equal((await fetch(`${runner.url}/${path}`)).status, 404, path);
  }
});

test('what the policy forbids is forbidden: no script of a line, of a string, or of elsewhere', async () => {
  const runner = await start();
  const page = await open(runner);
  const ran = await page.evaluate(() => {
    const script = document.createElement('script');
    script.textContent = 'globalThis.ran = true';
    document.head.append(script);
    return globalThis.ran === true;
  });
  assert.equal(ran, false);
  // This test made the browser complain, and it did.
  assert.equal(page.complaints.splice(0).some((text) => text.includes('script-src')), true);
  await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 0)));
  page.complaints.length = 0;
});

test('a runner that needs a token is asked with it, and the tab alone keeps it', async () => {
  const token = 'a-token-that-nobody-guesses';
  const runner = await Runner.start({ admin: `token = "${token}"` });
  const page = await open(runner, '#/', { waits: false });
  const dialog = page.getByRole('dialog');
  await seen(dialog);
  await dialog.getByLabel('Token').fill('wrong-wrong-wrong-wrong');
  await dialog.getByRole('button', { name: 'Go on' }).click();
  await seen(dialog.getByText('not right'));
  await dialog.getByLabel('Token').fill(token);
  await dialog.getByRole('button', { name: 'Go on' }).click();
  await seen(page.getByText('No jobs yet.'));
  await seen(page.getByText('live', { exact: true }));
  const kept = await page.evaluate(() => [localStorage.length, document.cookie, Object.values(sessionStorage)]);
  assert.deepEqual(kept, [0, '', [token]]);
  assert.ok(!page.url().includes(token));
  await page.reload();
  await seen(page.getByText('No jobs yet.'));
});
