"""Networks, addresses, links, published ports and names."""
