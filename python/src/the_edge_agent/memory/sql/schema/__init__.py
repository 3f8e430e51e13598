"""Tables: how they are declared, created and upgraded."""
