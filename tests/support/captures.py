"""What the tests of captures share: a TCP connection as packets, and packets as a file."""

from __future__ import annotations

import io
import re
import socket
import sys
from typing import Any

import dpkt

from tests.support.core import MASK
from tests.support.peers import request, response
from wsframe import Opcode, encode_frame

CLIENT, SERVER = ("10.0.0.1", 50000), ("10.0.0.2", 8001)


class Wire:
    """A TCP connection, written down as IP packets."""

    def __init__(self, client: tuple[str, int] = CLIENT, server: tuple[str, int] = SERVER) -> None:
        self.ends = {"client": client, "server": server}
        self.sequence = {"client": 2**32 - 5, "server": 1000}  # one of them wraps around
        self.packets: list[bytes] = []

    def send(self, sender: str, data: bytes = b"", flags: int = dpkt.tcp.TH_ACK) -> Wire:
        other = "server" if sender == "client" else "client"
        (source, sport), (target, dport) = self.ends[sender], self.ends[other]
        segment = dpkt.tcp.TCP(
            sport=sport,
            dport=dport,
            seq=self.sequence[sender],
            ack=self.sequence[other],
            flags=flags,
            data=data,
        )
        is_six = ":" in source
        family = socket.AF_INET6 if is_six else socket.AF_INET
        ends = {"src": socket.inet_pton(family, source), "dst": socket.inet_pton(family, target)}
        if is_six:
            packet = dpkt.ip6.IP6(nxt=6, hlim=64, plen=len(segment), data=segment, **ends)
            packet.extension_hdrs = {}
        else:
            packet = dpkt.ip.IP(p=6, len=20 + len(segment), data=segment, **ends)
        self.packets.append(bytes(packet))
        fin_or_syn = bool(flags & (dpkt.tcp.TH_SYN | dpkt.tcp.TH_FIN))
        self.sequence[sender] = (self.sequence[sender] + len(data) + fin_or_syn) % 2**32
        return self

    def open(self) -> Wire:
        return self.send("client", flags=dpkt.tcp.TH_SYN).send(
            "server", flags=dpkt.tcp.TH_SYN | dpkt.tcp.TH_ACK
        )

    def shake_hands(self, *headers: str) -> Wire:
        return self.open().send("client", request(path="/chat")).send("server", response(*headers))

    def end(self) -> Wire:
        for sender in ("client", "server"):
            self.send(sender, flags=dpkt.tcp.TH_FIN | dpkt.tcp.TH_ACK)
        return self


LINKS = {
    "ethernet": (1, bytes(12) + b"\x08\x00"),
    "vlan": (1, bytes(12) + b"\x81\x00\x00\x05\x08\x00"),
    "raw": (101, b""),
    "cooked": (113, b"\x00\x00\x03\x04\x00\x06" + bytes(8) + b"\x08\x00"),
    "cooked v2": (276, b"\x08\x00\x00\x00\x00\x00\x00\x01\x03\x04\x00\x06" + bytes(8)),
    "loopback": (0, b"\x02\x00\x00\x00"),
}


def pcap(packets: list[bytes], link: str = "ethernet", module: Any = dpkt.pcap) -> bytes:
    """Return a capture with these packets, one every quarter of a second."""
    number, header = LINKS[link]
    file = io.BytesIO()
    if module is dpkt.pcapng:
        little = sys.byteorder == "little"
        block = dpkt.pcapng.InterfaceDescriptionBlockLE if little else dpkt.pcapng.InterfaceDescriptionBlock
        options = {"idb": block(linktype=number)}
    else:
        options = {"linktype": number}
    writer = module.Writer(file, **options)
    for index, packet in enumerate(packets):
        writer.writepkt(header + packet, 1000 + index / 4)
    return file.getvalue()


def talk() -> Wire:
    """Return a whole conversation."""
    wire = Wire().shake_hands()
    wire.send("client", encode_frame(Opcode.TEXT, b"Hello", mask=MASK))
    wire.send("server", encode_frame(Opcode.TEXT, b"World")[:3])
    wire.send("server", encode_frame(Opcode.TEXT, b"World")[3:])
    wire.send("client", encode_frame(Opcode.CLOSE, b"\x03\xe8", mask=MASK))
    wire.send("server", encode_frame(Opcode.CLOSE, b"\x03\xe8"))
    return wire.end()


# The lines for it, without number, time and offset
TALK = [
    " client  GET /chat",
    " server  101",
    ' client  F---  TEXT          01020304       5  "Hello"',
    ' server  F---  TEXT          -              5  "World"',
    " client  F---  CLOSE         01020304       2  1000 NORMAL_CLOSURE",
    " server  F---  CLOSE         -              2  1000 NORMAL_CLOSURE",
]


def without_places(lines: list[str]) -> list[str]:
    """Return lines without the number of the connection, the time and the offset."""
    return [re.sub(r"^([ !=#]) +\d+ +[\d.]+ +\d+  ", r"\1", line) for line in lines]
