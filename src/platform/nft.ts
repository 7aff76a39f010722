/** The nftables firewall, through the `nft` program: one child per transaction, whatever its size. */
import { spawn } from 'node:child_process';

/** Far above what a transaction takes; a child that needs longer is stuck and is killed. */
const deadlineMs = 10_000;
const stderrMax = 16 * 1024;

/**
 * Applies `script` (the language of nft(8)) in the calling process's network namespace. The kernel takes all of it or nothing.
 * Rejects with nft's own words.
 */
export function applyNft(script: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn('nft', ['-f', '-'], {
      stdio: ['pipe', 'ignore', 'pipe'],
      timeout: deadlineMs,
      killSignal: 'SIGKILL',
    });
    let words = '';
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      if (words.length < stderrMax) words += chunk.slice(0, stderrMax - words.length);
    });
    child.on('error', (cause) => reject(new Error(`cannot run nft (package nftables): ${cause.message}`, { cause })));
    child.on('close', (code, signal) => {
      if (code === 0) resolve();
      else if (signal !== null) reject(new Error(`nft was ended by ${signal}; it has ${deadlineMs / 1000} seconds`));
      else reject(new Error(`nft refused the rules: ${words.trim() || `exit code ${code}`}`));
    });
    // A child that died before it read everything is reported by its exit code.
    child.stdin.on('error', () => undefined);
    child.stdin.end(script);
  });
}
