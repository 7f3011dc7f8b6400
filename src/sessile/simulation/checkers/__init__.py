"""What must hold, whatever the world does: each checker is told what happens and looks on its own."""
