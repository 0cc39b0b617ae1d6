"""Commands that measure; each prints its figures with the machine that they were taken on."""
