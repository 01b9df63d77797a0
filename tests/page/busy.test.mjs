import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Runner, open, seen } from './sandhog.mjs';

/** As many looks as a page has in an hour, at the pace of a live one. */
const LOOKS = 720;
const MIB = 1 << 20;

test('an hour on a busy runner: memory stays flat, in the browser and in the runner', { timeout: 600_000 }, async () => {
  const runner = await Runner.start({ config: '[queue]\nkeep_completed = 0' });
  const page = await open(runner);
  await page.clock.install();
  await page.reload();
  await seen(page.getByText('No jobs yet.'));
  const browser = await page.context().newCDPSession(page);
  await browser.send('Performance.enable');
  const look = async () => {
    await browser.send('HeapProfiler.collectGarbage');
    const { metrics } = await browser.send('Performance.getMetrics');
    const of = (name) => metrics.find((metric) => metric.name === name).value;
    return { heap: of('JSHeapUsedSize'), nodes: of('Nodes'), listeners: of('JSEventListeners') };
  };
  const jobs = Array.from({ length: 100 }, () => ({ job_type: 'obey', do: 'complete' }));
  let events = 0;
  let early = null;
  let earlyRunner = 0;
  for (let looks = 0; looks < LOOKS; looks += 1) {
    if (looks % 4 === 0) {
      await runner.api('POST', 'jobs', jobs);
      events += 2 * jobs.length;
    }
    const answered = page.waitForResponse((response) => response.url().includes('/v1/activity'));
    await page.clock.runFor(5_000);
    await answered;
    if (looks === LOOKS / 6) {
      early = await look();
      earlyRunner = runner.memory();
    }
  }
  const late = await look();
  assert.ok(events >= 30_000);
  assert.ok(late.heap - early.heap < 2 * MIB, `the heap grew from ${early.heap} to ${late.heap}`);
  assert.ok(late.nodes - early.nodes < 500, `${early.nodes} nodes became ${late.nodes}`);
  assert.ok(late.listeners - early.listeners < 50, `${early.listeners} listeners became ${late.listeners}`);
  assert.ok(runner.memory() - earlyRunner < 32 * MIB, `the runner grew from ${earlyRunner} to ${runner.memory()}`);
});

test('a thousand types are shown in part, and the rest is counted', async () => {
  const runner = await Runner.start({ handlers: { hostile: ['hostile', 'job_types = ["*"]\n'] } });
  const jobs = Array.from({ length: 1_050 }, (_, at) => ({ job_type: `type-${at}` }));
  await runner.api('POST', 'jobs', jobs);
  await runner.eventually(async () => (await runner.api('GET', 'stats')).counts.every((of) => of.state === 'dead'), 'all are rejected');
  const page = await open(runner);
  await seen(page.getByText(/and [\d,]+ more types/));
  assert.ok((await page.locator('tbody tr').count()) <= 101);
});
