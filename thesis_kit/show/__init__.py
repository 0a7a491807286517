"""What draws: figures, players, tables, and the pages of the ledger and the zoo. Whoever measures never needs it."""
