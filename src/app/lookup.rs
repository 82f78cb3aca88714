//! Answers that take a moment and that nobody waits for, such as how much memory a run would need.

use std::sync::mpsc::{Receiver, TryRecvError, channel};

use eframe::egui::Context;

/// The answer to the last question; while the next one is worked out, that to the one before.
#[derive(Debug)]
pub struct Lookup<Q, A> {
    answered: Option<(Q, A)>,
    asked: Option<(Q, Receiver<A>)>,
}

impl<Q, A> Default for Lookup<Q, A> {
    fn default() -> Self {
        Lookup { answered: None, asked: None }
    }
}

impl<Q: PartialEq + Clone + Send + 'static, A: Send + 'static> Lookup<Q, A> {
    /// The answer to `question`, once it is there; `work` finds it on a thread of its own, one question at a time.
    pub fn get(&mut self, context: &Context, question: &Q, work: impl FnOnce(Q) -> A + Send + 'static) -> Option<&A> {
        if let Some((_, answer)) = &self.asked {
            match answer.try_recv() {
                Ok(answer) => self.answered = self.asked.take().map(|(question, _)| (question, answer)),
                Err(TryRecvError::Disconnected) => self.asked = None,
                Err(TryRecvError::Empty) => {}
            }
        }
        let known = self.answered.as_ref().is_some_and(|(answered, _)| answered == question);
        if !known && self.asked.is_none() {
            let (sender, answer) = channel();
            let (context, asked) = (context.clone(), question.clone());
            std::thread::spawn(move || {
                // If the window has gone, nobody wants to know.
                let _ = sender.send(work(asked));
                context.request_repaint();
            });
            self.asked = Some((question.clone(), answer));
        }
        self.answered.as_ref().filter(|_| known).map(|(_, answer)| answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_question_is_worked_out_once() {
        let context = Context::default();
        let mut lookup = Lookup::default();
        let mut ask = |question: u32| loop {
            if let Some(answer) = lookup.get(&context, &question, |n| n + 1) {
                return *answer;
            }
            std::thread::yield_now();
        };
        assert_eq!([ask(1), ask(2), ask(1)], [2, 3, 2]);
        let again = lookup.get(&context, &1, |_| unreachable!("the answer is known"));
        assert_eq!(again, Some(&2));
    }
}
