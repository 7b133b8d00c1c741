"""How weights are moved: Muon for matrices, AdamW for the rest, with the horizon and schedules that set their rates."""
