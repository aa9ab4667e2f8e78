"""The peers that fibcore is compared with."""
