// The real binary in a folder of its own, with a browser that looks at its page.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, afterEach } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));
const { chromium } = createRequire(join(root, 'target/page/'))('playwright-core');
const binary = join(root, 'target/release/sandhog');
const GUESTS = { obedient: 'tests/fixtures/built-1.0.0/text.wasm', greet: 'target/handlers/greet.wasm', hostile: 'target/handlers/hostile.wasm', report: 'target/handlers/report-failure.wasm' };

/** What may take so long that a slow machine has no part in it. */
export const PATIENCE_MS = (Number(process.env.SANDHOG_TEST_PATIENCE) || 60) * 1_000;

const LOOK_AGAIN_MS = 20;

const CHROMIUM = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--enable-precise-memory-info'];

/** Without what would configure a runner. */
const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('SANDHOG')));

/** A port that is free now. */
async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

export class Runner {
  /**
   * Starts a runner with `handlers`, `{ name: [guest, manifest] }`, and waits until it is ready. It ends with the test, or
   * `shared` with the last of the file.
   */
  static async start({ shared = false, handlers = { obey: ['obedient', ''] }, config = '', admin = '', port = null } = {}) {
    const runner = new Runner();
    runner.folder = mkdtempSync(join(tmpdir(), 'sandhog-page-'));
    mkdirSync(join(runner.folder, 'handlers'));
    for (const [name, [guest, manifest]] of Object.entries(handlers)) runner.put(name, guest, manifest);
    runner.port = port ?? await freePort();
    runner.url = `http://127.0.0.1:${runner.port}`;
    writeFileSync(join(runner.folder, 'sandhog.toml'), `${config}\n[admin]\nlisten = "127.0.0.1:${runner.port}"\n${admin}\n`);
    (shared ? afterAll : afterTest).push(async () => {
      await runner.kill();
      rmSync(runner.folder, { recursive: true, force: true });
    });
    await runner.up();
    return runner;
  }

  /** Puts a guest into the handlers' folder, its manifest first. */
  put(name, guest, manifest = '') {
    const folder = join(this.folder, 'handlers');
    if (manifest) writeFileSync(join(folder, `${name}.toml`), manifest);
    const part = join(this.folder, `${name}.part`);
    copyFileSync(join(root, GUESTS[guest]), part);
    renameSync(part, join(folder, `${name}.wasm`));
  }

  async up() {
    this.child = spawn(binary, ['run'], { cwd: this.folder, env: environment, stdio: ['ignore', 'ignore', 'pipe'] });
    const lines = [];
    await new Promise((resolve, reject) => {
      const reader = createInterface({ input: this.child.stderr });
      reader.on('line', (line) => {
        if (lines.length < 1_000) lines.push(line);
        if (line.includes('ready: ')) resolve();
      });
      reader.on('close', () => reject(new Error(`it did not start:\n${lines.join('\n')}`)));
    });
  }

  async kill() {
    if (!this.child || this.child.exitCode !== null || this.child.signalCode !== null) return;
    this.child.kill('SIGKILL');
    await once(this.child, 'exit');
  }

  /** The command line, in the runner's folder. */
  sandhog(...args) {
    return execFileSync(binary, args, { cwd: this.folder, env: environment, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  }

  async api(method, path, body, headers = {}) {
    const response = await fetch(`${this.url}/v1/${path}`, { method, headers: body === undefined ? headers : { 'content-type': 'application/json', ...headers }, body: body === undefined ? undefined : JSON.stringify(body) });
    const text = await response.text();
    assert.ok(response.ok, `${method} ${path}: ${response.status} ${text}`);
    return text === '' ? null : JSON.parse(text);
  }

  /** Enqueues a job; what the obedient guest is told to do, or any body. Answers its id. */
  async enqueue(job, query = '') {
    const body = typeof job === 'string' ? { job_type: 'obey', do: job } : job;
    const { id } = await this.api('POST', `jobs${query}`, body);
    return id;
  }

  /** The same, and waits until it has ended. */
  async ended(job) {
    const id = await this.enqueue(job);
    await this.eventually(async () => ['completed', 'dead'].includes((await this.show(id)).state), `${id} has ended`);
    return id;
  }

  async show(id) {
    return this.api('GET', `jobs/${encodeURIComponent(id)}`);
  }

  /** Waits until a look at the API shows what is claimed. */
  async eventually(look, what) {
    const until = Date.now() + PATIENCE_MS;
    for (;;) {
      const seen = await look();
      if (seen) return seen;
      assert.ok(Date.now() < until, `never: ${what}`);
      await setTimeout(LOOK_AGAIN_MS);
    }
  }

  /** The memory of its process, in bytes. */
  memory() {
    return Number(execFileSync('ps', ['-o', 'rss=', '-p', String(this.child.pid)], { encoding: 'utf8' })) * 1024;
  }
}

let browser = null;
const afterTest = [];
const afterAll = [];

async function end(what) {
  for (const each of what.splice(0).reverse()) await each();
}

afterEach(() => end(afterTest));
after(async () => {
  await end(afterAll);
  await browser?.close();
});

/**
 * A tab on the runner's page. Whatever the browser complains of is in `complaints`, and what is claimed at the end of the
 * test is that there was nothing: no error, nothing that the policy of content forbids, and no dialog.
 */
export async function open(runner, address = '#/', { waits = true, ...options } = {}) {
  browser ??= await chromium.launch({ executablePath: process.env.SANDHOG_TEST_CHROMIUM ?? '/usr/bin/chromium', args: CHROMIUM });
  const context = await browser.newContext(options);
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  const complaints = [];
  page.complaints = complaints;
  page.on('console', (message) => {
    // That an answer was an error is not the page's: it shows it.
    if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) complaints.push(message.text());
  });
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('dialog', (dialog) => {
    if (dialog.type() !== 'beforeunload') complaints.push(`a dialog: ${dialog.message()}`);
    dialog.accept().catch(() => {});
  });
  await page.exposeFunction('complain', (text) => complaints.push(text));
  await page.addInitScript(() => {
    addEventListener('securitypolicyviolation', (event) => globalThis.complain(`${event.violatedDirective}: ${event.blockedURI}`));
  });
  await page.goto(`${runner.url}/${address}`);
  afterTest.push(async () => {
    await context.close();
    assert.deepEqual(complaints, [], 'the browser complained');
  });
  if (waits) await loaded(page);
  return page;
}

/** Waits until the page has drawn what it loaded. */
export const loaded = (page) => page.waitForFunction(() => document.querySelector('main h1') && !document.querySelector('[aria-busy]'));

/** Goes to another address of the page. */
export async function go(page, address) {
  await page.evaluate((hash) => {
    location.hash = hash;
  }, address);
  await loaded(page);
}

/** A row of a table with these words in it. */
export const row = (page, text) => page.getByRole('row').filter({ hasText: text });

/** Waits until `look`, which is run in the browser, holds. */
export const seen = (locator) => locator.first().waitFor({ state: 'visible' });
export const gone = (locator) => locator.first().waitFor({ state: 'detached' });

assert.ok(existsSync(binary), `there is no ${binary}: make build`);
