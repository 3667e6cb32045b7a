"""Applies the net agent's plan: netlink, the TUN device, nft, and the giving up of privileges."""
