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
      signal: AbortSignal.timeout(deadlineMs),
      killSignal: 'SIGKILL',
    });
    let words = '';
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      if (words.length < stderrMax) words += chunk.slice(0, stderrMax - words.length);
    });
    child.on('error', (cause) => {
      const reason = cause.name === 'AbortError' ? `not done after ${deadlineMs / 1000} seconds` : cause.message;
      reject(new Error(`cannot run nft (package nftables): ${reason}`, { cause }));
    });
    child.on('close', (code, signal) => {
      if (code === 0) resolve();
      else reject(new Error(`nft refused the rules: ${words.trim() || `ended with ${signal ?? code}`}`));
    });
    // A child that died before it read everything is reported by its exit code.
    child.stdin.on('error', () => undefined);
    child.stdin.end(script);
  });
}
