"""The demo: a fox is drawn, learned, drawn again, and looked at. It joins the film, the trainer and the generator."""
