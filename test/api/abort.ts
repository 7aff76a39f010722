/** Clients that begin a stream and are gone before anything came. */
import net from 'node:net';

const questions = [
  'GET /events HTTP/1.1\r\nHost: x\r\n\r\n',
  'GET /containers/a/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n',
  'POST /containers/a/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n',
];

export async function abortMany(socketPath: string, count: number): Promise<void> {
  for (let done = 0; done < count; done += 10) {
    await Promise.all(
      Array.from(
        { length: 10 },
        (_, index) =>
          new Promise<void>((resolve) => {
            const socket = net.connect(socketPath);
            socket.write(questions[index % questions.length] as string);
            socket.once('data', () => socket.destroy());
            socket.on('error', () => undefined);
            socket.once('close', () => resolve());
          }),
      ),
    );
  }
}
