"""A stand-in for the journal: takes entries at the socket given and prints each as hex, large ones from the file that came along."""
import os
import socket
import sys

server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
server.bind(sys.argv[1])
print("listening", flush=True)
while True:
    data, descriptors, _, _ = socket.recv_fds(server, 1 << 20, 1)
    how = "datagram"
    for descriptor in descriptors:
        how = "file"
        data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        os.close(descriptor)
    print(how, data.hex(), flush=True)
