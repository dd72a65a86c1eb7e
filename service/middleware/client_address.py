"""The address of a client behind reverse proxies."""

import ipaddress
import logging
from collections.abc import Iterable

from service.default_address import unquote

log = logging.getLogger("bentoml.atelier")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_HOPS = 16  # a client may write as many addresses into X-Forwarded-For as fit
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def parse_address(text: str) -> Address | None:
    """Return the address of a peer or of an entry of X-Forwarded-For, or None if it is not an address.

    Ports, brackets and zones are removed. An IPv6 address that represents an IPv4 address becomes that address.
    """
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address: Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address.sixtofour:
            return address.sixtofour
        if address.teredo:
            return address.teredo[1]
    return address


class TrustedProxies:
    """The proxies whose X-Forwarded-For is trusted.

    Args:
        setting: Addresses and networks, comma-separated. `*` trusts every peer, for one hop.

    Raises:
        ValueError: If an entry is neither an address nor a network.
    """

    def __init__(self, setting: str | None):
        entries = [unquote(entry).strip() for entry in (setting or "").split(",") if entry.strip()]
        self._any = "*" in entries
        self._networks = tuple(_network(entry) for entry in entries if entry != "*")
        self._warned = False

    def trusts(self, address: Address) -> bool:
        """Return whether a proxy at this address is trusted."""
        return any(address.version == network.version and address in network for network in self._networks)

    def client(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Return the address of the client that sent a request.

        Each proxy appends the address that called it, so the list is read from its end: the client is the first address
        that is not a trusted proxy. What precedes it was written by the client itself.

        Args:
            peer: The address that the connection comes from.
            headers: The request's headers, names in lower case.
        """
        lines = [value for name, value in headers if name == b"x-forwarded-for"]
        if not lines:
            return peer
        address = parse_address(peer)
        if address is None or not (self._any or self.trusts(address)):
            self._warn(peer)
            return peer
        forwarded = b",".join(lines).decode("latin-1").rsplit(",", MAX_HOPS)
        for entry in reversed(forwarded[-MAX_HOPS:]):
            found = parse_address(entry)
            if found is None:  # `unknown`, or a name: only the proxy that wrote it is known
                break
            address = found
            if not self.trusts(address):
                break
        return str(address)

    def _warn(self, peer: str) -> None:
        """Log once that the clients of a proxy may be counted as one."""
        if not self._warned:
            self._warned = True
            log.warning(
                "a request from %s has X-Forwarded-For, and ATELIER_TRUSTED_PROXIES does not name that address: if it "
                "is a proxy, all of its clients share one rate limit",
                peer,
            )


def _network(entry: str) -> Network:
    try:
        network = ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        raise ValueError(f"{entry[:100]!r} is neither an address nor a network such as 10.0.0.0/8") from None
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped and network.prefixlen >= 96:
        return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network
