"""The virtio header that a TUN device with IFF_VNET_HDR puts in front of each packet."""

from typing import Final

VNET_HEADER: Final = 10
"""Bytes of struct virtio_net_hdr (linux/virtio_net.h): flags, type, lengths, segment size, checksum's place."""
