"""Runs a command in a real terminal of a given size: terminal.py ROWS COLUMNS COMMAND...

stdin goes to the terminal, what the terminal shows goes to stdout. Each line "ROWS COLUMNS" on descriptor 3 resizes it.
The exit code is the command's, or 128 + signal.
"""
import errno, fcntl, os, pty, select, signal, struct, sys, termios


def resize(terminal, rows, columns):
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


rows, columns, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
ready_read, ready_write = os.pipe()
pid, terminal = pty.fork()
if pid == 0:
    os.read(ready_read, 1)  # The size is set before the command can ask for it.
    for descriptor in (ready_read, ready_write, 3):
        os.close(descriptor)
    os.execvp(command[0], command)
resize(terminal, rows, columns)
os.write(ready_write, b"x")

sources = [0, 3, terminal]
while terminal in sources:
    for source in select.select(sources, [], [])[0]:
        try:
            data = os.read(source, 65536)
        except OSError as error:  # EIO: nobody holds the other side any more.
            if error.errno != errno.EIO:
                raise
            data = b""
        if not data:
            sources.remove(source)
        elif source == 0:
            os.write(terminal, data)
        elif source == 3:
            for line in data.decode().split("\n"):
                if line:
                    resize(terminal, *map(int, line.split()))
        else:
            os.write(1, data)
status = os.waitpid(pid, 0)[1]
sys.exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))
