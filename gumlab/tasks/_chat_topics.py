"""The words of task `chats`: names, days, topics with their activities, places and tasks."""

from __future__ import annotations

NAMES = (
    "Ana", "Ben", "Chen", "Dara", "Emre", "Fatima", "Goran", "Hana", "Ivan", "Jonas", "Kofi",
    "Lena", "Mei", "Nils", "Olga", "Priya", "Rosa", "Sami", "Tara", "Uma", "Vera", "Wen",
    "Yusuf", "Zoe",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
TIMES = ("nine", "ten", "eleven", "noon", "two", "three", "four", "five", "six", "seven", "eight")
REASONS = ("an exam", "a meeting", "a late shift", "a dentist appointment", "a family dinner",
           "a work trip", "guests", "a job interview", "a piano lesson", "an eye test")  # fmt: skip
OUTCOMES = ("agreed", "declined", "postponed", "handover")

# topic: activities as (activity, its noun, a duty), places, tasks that can be handed over
Activity = tuple[str, str, str]
TOPICS: dict[str, tuple[tuple[Activity, ...], tuple[str, ...], tuple[str, ...]]] = {
    "sport": ((("play tennis", "the tennis match", "bring the rackets"),
               ("go running", "the run", "bring the water"),
               ("play football", "the football match", "bring the ball")),
              ("in the park", "at the sports hall"), ("book the court", "wash the team shirts")),
    "film": ((("watch a comedy", "the comedy", "buy the tickets"),
              ("see the new thriller", "the thriller", "make the popcorn")),
             ("at the cinema", "at the film club"), ("return the films", "reserve the seats")),
    "cooking": ((("cook dumplings", "the dumpling evening", "buy the flour"),
                 ("bake bread", "the baking", "bring the oven dish"),
                 ("make soup", "the soup lunch", "chop the onions")),
                ("at the youth club", "in the shared kitchen"),
                ("clean the oven", "order the vegetables")),
    "homework": ((("study maths", "the maths lesson", "print the exercises"),
                  ("practise French", "the French practice", "bring the dictionary")),
                 ("in the library", "at the corner cafe"), ("hand in the essay", "copy the notes")),
    "shopping": ((("shop for shoes", "the shoe shopping", "bring the voucher"),
                  ("look for a sofa", "the sofa hunt", "measure the room")),
                 ("at the mall", "in the old town"), ("collect the parcel", "buy the groceries")),
    "trip": ((("go hiking", "the hike", "pack the lunch"),
              ("go cycling", "the bike tour", "bring the map"),
              ("have a picnic", "the picnic", "bring the blanket")),
             ("in the hills", "along the river"), ("rent the car", "book the hostel")),
    "repair": ((("fix the bike", "the bike repair", "bring the tools"),
                ("paint the shelves", "the painting", "buy the paint")),
               ("in the garage", "in the yard"), ("call the plumber", "change the lock")),
    "party": ((("have a barbecue", "the barbecue", "bring the charcoal"),
               ("throw a birthday party", "the birthday party", "order the cake")),
              ("on the roof", "in the garden"), ("send the invitations", "decorate the hall")),
    "concert": ((("hear the jazz band", "the jazz night", "book the seats"),
                 ("listen to the choir", "the choir concert", "check the programme")),
                ("at the town hall", "at the open stage"), ("tune the piano", "sell the tickets")),
    "pets": ((("walk the dogs", "the dog walk", "bring the leads"),
              ("train the puppy", "the puppy training", "buy the treats")),
             ("on the beach", "in the woods"), ("feed the rabbits", "brush the pony")),
}  # fmt: skip

SMALL_TALK = (
    ("Hi {b}, how are you?", "Fine, thanks."), ("How was {day}?", "Long, but good."),
    ("Did you see the rain on {day}?", "Yes, I got wet!"), ("Nice photo of {c}!", "Thanks!"),
    ("Have you heard from {c}?", "Not since {day}."), ("Is {c} back?", "Yes, since {day}."),
)  # fmt: skip
CLOSING = ("Great, see you then!", "Perfect, thanks!", "See you!", "Wonderful, bye!")
LAST_WORD = {"handover": ("You are welcome.", "Any time!"), "declined": ("Good luck!", "Sorry!")}
