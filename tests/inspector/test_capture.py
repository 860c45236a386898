"""Captures: the WebSockets in the packets of a pcap or pcapng file."""

from __future__ import annotations

import io
import struct
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.core import MASK
from tests.support.inspection import HELLO, line_of
from tests.support.peers import request
from wsframe import ClientConnection, Deflate, Opcode, ServerConnection, encode_frame
from wsframe.inspector import InspectedFrame, InspectedHead, InspectedMessage, Violation

pytest.importorskip("dpkt")

import dpkt

from tests.support.captures import CLIENT, LINKS, SERVER, TALK, Wire, pcap, talk, without_places
from wsframe.inspector.capture import Capture, CapturedFinding, CaptureInspector, is_capture


class Inspection(NamedTuple):
    """A capture that was read to its end."""

    capture: Capture
    inspector: CaptureInspector
    found: list[CapturedFinding]

    @property
    def lines(self) -> list[str]:
        return [
            line_of(finding, connection.number, time)
            for connection, time, finding in self.found
            if not isinstance(finding, InspectedMessage)
        ]

    @property
    def talk(self) -> list[str]:
        """The lines without number, time and offset."""
        return without_places(self.lines)

    @property
    def has_violation(self) -> bool:
        return any(isinstance(finding, Violation) for _, _, finding in self.found)


def inspect(data: bytes, **options: Any) -> Inspection:
    assert is_capture(data)
    capture, inspector = Capture(io.BytesIO(data), data[:4]), CaptureInspector(**options)
    found = [finding for chunk in capture.chunks() for finding in inspector.feed(chunk)]
    return Inspection(capture, inspector, found)


@pytest.mark.parametrize("module", [dpkt.pcap, dpkt.pcapng], ids=["pcap", "pcapng"])
@pytest.mark.parametrize("link", LINKS)
def test_a_capture_has_both_directions(link: str, module: Any) -> None:
    inspection = inspect(pcap(talk().packets, link, module))
    assert inspection.talk == TALK
    assert (inspection.capture.problem, inspection.capture.skipped) == ("", 0)
    assert (inspection.inspector.count, inspection.inspector.others) == (1, 0)
    connection = inspection.found[0].connection
    assert (connection.number, connection.client, connection.server) == (1, CLIENT, SERVER)
    head = len(request(path="/chat"))
    assert inspection.lines[2] == (
        f"   1    1.000000{head:>7}" + '  client  F---  TEXT          01020304       5  "Hello"'
    )
    times = [time for _, time, finding in inspection.found if isinstance(finding, InspectedFrame)]
    assert times[1] == 1.5  # when the last of it came


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_capture_may_be_of_several_interfaces(order: str) -> None:
    def block(kind: int, body: bytes) -> bytes:
        size = struct.pack(order + "I", len(body) + 12)
        return struct.pack(order + "I", kind) + size + body + size

    data = block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))
    links = ("ethernet", "cooked v2", "raw")
    for link in links:  # their times are in units of 2 ** -2 seconds
        option = struct.pack(order + "HHB3xHH", 9, 1, 0x82, 0, 0)
        data += block(1, struct.pack(order + "HHI", LINKS[link][0], 0, 0) + option)
    for index, packet in enumerate(talk().packets):
        captured = LINKS[links[index % 3]][1] + packet
        header = struct.pack(order + "IIIII", index % 3, 0, index, len(captured), len(captured))
        data += block(6, header + captured + bytes(-len(captured) % 4))
        data += block(5, bytes(8))  # of a kind that is of no interest
    assert inspect(data).found == inspect(pcap(talk().packets)).found


def test_packets_of_an_unknown_link_type_are_counted() -> None:
    data = bytearray(pcap(talk().packets))
    struct.pack_into("=I", data, 20, 147)
    inspection = inspect(bytes(data))
    assert inspection.found == []
    assert inspection.capture.skipped == len(talk().packets)


# TCP


def test_segments_are_put_in_order() -> None:
    packets = talk().packets
    assert inspect(pcap([packet for packet in packets for _ in range(2)])).talk == TALK
    swapped = [*packets[:5], packets[6], packets[5], *packets[7:]]
    assert inspect(pcap(swapped)).talk == TALK
    # All of it once more, at the end, and the end of the handshake after the beginning of the frames
    assert inspect(pcap(packets + packets[2:])).talk == TALK
    early = [*packets[:3], packets[4], packets[3], *packets[5:]]
    assert inspect(pcap(early)).talk == TALK


def test_segments_that_overlap_count_once() -> None:
    wire = Wire().shake_hands()
    frame = encode_frame(Opcode.TEXT, b"0123456789", mask=MASK)
    start = wire.sequence["client"]
    for first, last in ((0, 6), (3, 9), (0, 2), (8, 16)):
        wire.sequence["client"] = (start + first) % 2**32
        wire.send("client", frame[first:last])
    assert inspect(pcap(wire.packets)).lines[2].endswith('"0123456789"')


def test_what_is_missing_ends_a_direction_and_not_the_other() -> None:
    wire = Wire().shake_hands()
    for number in range(4):
        wire.send("client", encode_frame(Opcode.TEXT, b"%d" % number, mask=MASK))
        wire.send("server", encode_frame(Opcode.TEXT, b"%d" % number))
    del wire.packets[6]  # the client's second
    inspection = inspect(pcap(wire.packets))
    assert not inspection.has_violation
    assert [line[-3:] for line in inspection.talk[2:7]] == ['"0"', '"0"', '"1"', '"2"', '"3"']
    assert inspection.talk[7] == (
        "#client  7 bytes are missing in the capture: nothing behind them can be read"
    )


def test_what_waits_for_what_is_missing_is_limited() -> None:
    wire = Wire().shake_hands()
    wire.sequence["client"] = (wire.sequence["client"] + 100) % 2**32
    for _ in range(1100):
        wire.send("client", b"x")
    lines = inspect(pcap(wire.packets)).lines
    assert "100 bytes are missing in the capture" in lines[2]
    assert len(lines) == 3


def test_ports_may_be_used_again() -> None:
    packets = talk().packets
    assert inspect(pcap([*packets, *packets[2:]])).talk == TALK  # that is the same once more
    again = Wire()
    again.sequence = {"client": 77, "server": 78}
    again.shake_hands().send("client", HELLO)
    inspection = inspect(pcap([*packets, *again.packets]))
    assert inspection.talk[:6] == TALK
    assert [finding.connection.number for finding in inspection.found if finding.time > 2.5] == [2, 2, 2, 2]
    assert inspection.lines[8].endswith('"Hello"')


def test_the_end_of_a_stream_within_a_frame_is_a_violation_and_that_of_the_capture_is_not() -> None:
    inspection = inspect(pcap(Wire().shake_hands().send("client", HELLO[:8]).packets))
    assert not inspection.has_violation
    assert "the capture ends within a frame: 3 of 5 bytes" in inspection.lines[-1]
    for flags in (dpkt.tcp.TH_FIN, dpkt.tcp.TH_RST):
        cut = Wire().shake_hands().send("client", HELLO[:8]).send("client", flags=flags)
        inspection = inspect(pcap(cut.packets))
        assert inspection.has_violation
        assert "1006 the stream ends within a frame: 3 of 5 bytes" in inspection.lines[3]


# WebSockets


def test_compression_is_as_the_handshake_has_it() -> None:
    compression = Deflate(threshold=0, server_max_window_bits=10, client_no_context_takeover=True)
    client, server = ClientConnection("ws://localhost/", compression=compression), ServerConnection()
    wire = Wire().open()

    def pump(connection: Any, other: Any, sender: str) -> None:
        data = connection.data_to_send()
        wire.send(sender, data)
        other.receive_data(data)
        while other.next_event():
            pass

    data = client.data_to_send()
    wire.send("client", data)
    server.receive_data(data)
    server.next_event()
    server.accept()
    pump(server, client, "server")
    for number in range(3):
        client.send_text(f"Hello {number}, hello")
        pump(client, server, "client")
        server.send_text(f"World {number}, world", compress=True)
        pump(server, client, "server")
    # The client sends before the capture knows the answer.
    wire.packets[3], wire.packets[4] = wire.packets[4], wire.packets[3]
    inspection = inspect(pcap(wire.packets))
    assert not inspection.has_violation
    heads = [finding for _, _, finding in inspection.found if isinstance(finding, InspectedHead)]
    assert dict(heads[1].headers)["Sec-WebSocket-Extensions"].startswith("permessage-deflate")
    frames = [finding for _, _, finding in inspection.found if isinstance(finding, InspectedFrame)]
    assert {(frame.rsv, frame.inflated_length) for frame in frames} == {(4, 14)}
    assert [frame.payload.decode() for frame in frames] == [
        text for number in range(3) for text in (f"Hello {number}, hello", f"World {number}, world")
    ]


def test_other_traffic_is_left_out_and_counted() -> None:
    tls, http, web = (Wire(client=("10.0.0.1", port)) for port in (50001, 50002, 50003))
    tls.open().send("client", b"\x16\x03\x01\x00\x05hello").end()
    get = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    http.open().send("client", get).send("server", b"HTTP/1.1 200 OK\r\n\r\nhello").end()
    web.open().send("client", request()).send("server", b"HTTP/1.1 403 Forbidden\r\n\r\n").end()
    mixed = [packet for some in zip(tls.packets, http.packets, strict=False) for packet in some]
    itself = Wire(CLIENT, CLIENT).send("client", get)
    packets = [*mixed, *itself.packets, *talk().packets, b"\x45", b"", b"E" * 20, *web.packets]
    inspection = inspect(pcap(packets))
    assert inspection.talk == [*TALK, " client  GET /", " server  403"]
    assert inspection.found[-1].connection.client == ("10.0.0.1", 50003)
    inspector = inspection.inspector
    assert (inspector.count, inspector.others, inspector.encrypted) == (2, 2, 1)


def test_a_capture_may_begin_in_the_middle_when_the_port_is_told() -> None:
    packets = talk().packets[4:]
    inspection = inspect(pcap(packets))
    assert (inspection.found, inspection.inspector.count, inspection.inspector.others) == ([], 0, 1)
    assert inspect(pcap(packets), port=8001).talk == TALK[2:]


def test_ipv6() -> None:
    wire = Wire(("2001:db8::1", 50000), ("::1", 8001)).shake_hands()
    inspection = inspect(pcap(wire.packets, "raw"))
    connection = inspection.found[0].connection
    assert (connection.client, connection.server) == (("2001:db8::1", 50000), ("::1", 8001))


# Damage


@pytest.mark.parametrize("module", [dpkt.pcap, dpkt.pcapng], ids=["pcap", "pcapng"])
def test_a_capture_that_is_cut_or_damaged_is_read_as_far_as_it_goes(module: Any) -> None:
    data = pcap(talk().packets, module=module)
    inspection = inspect(data[:-3])
    assert inspection.capture.problem == "the capture is cut short"
    assert inspection.talk == TALK
    for size in (4, 20, 30):
        assert inspect(data[:size]).capture.problem
    inspection = inspect(data + b"\xff" * 64)
    assert inspection.talk == TALK
    assert "the capture is damaged: it has a block of " in inspection.capture.problem


@given(data=st.data())
def test_a_damaged_capture_is_no_reason_to_crash(data: st.DataObject) -> None:
    capture = bytearray(pcap(talk().packets, module=data.draw(st.sampled_from([dpkt.pcap, dpkt.pcapng]))))
    for _ in range(data.draw(st.integers(1, 8))):
        capture[data.draw(st.integers(4, len(capture) - 1))] = data.draw(st.integers(0, 255))
    _ = inspect(bytes(capture)).lines
