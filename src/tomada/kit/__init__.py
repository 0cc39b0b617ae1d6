"""Small tools without opinions on the product: clock, ids, sealing, addresses, egress, logs. Imports nothing of ours but errors."""
