"""How bytes get from rank to rank: one protocol, `base.Transport`, and one file for each way."""

from sparsecomm.collectives.transport.base import Arrival, Channel, MessageBuffer, Transport

__all__ = ["Arrival", "Channel", "MessageBuffer", "Transport"]
