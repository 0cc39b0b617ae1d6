"""Small tools without opinions on the product: clock, ids, sealing, addresses, egress, logs. Imports nobody of ours."""
