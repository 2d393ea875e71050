"""How accurate a model is, also on damaged scans."""
